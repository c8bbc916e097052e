"""How byte-level tokenizers split a text before they merge bytes, by the name that GGUF files use.

The names and which pattern each has are those of llama.cpp (`src/llama-vocab.cpp`, August 2026;
MIT license). Where llama.cpp approximates a model's own regular expression, because C++'s
regular expressions know no Unicode categories, the model's own is here, which llama.cpp quotes.
Several patterns apply one after the other: each splits what the one before has left.
"""

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _gpt4(digits: str) -> str:
    """The pattern of cl100k and its relatives, with numbers split as `digits` matches."""
    word = r"[^\r\n\p{L}\p{N}]?\p{L}+"
    return rf"{_CONTRACTION}|{word}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"


def _cased(digits: str, ending: str) -> str:
    """The pattern of o200k and its relatives, which splits words where lower case ends."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}{upper}*{lower}+{ending}|{start}{upper}+{lower}*{ending}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
    )


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = _gpt4(r"\p{N}{1,3}")
QWEN2 = _gpt4(r"\p{N}")
O200K = _cased(r"\p{N}{1,3}", f"{_CONTRACTION}?")
TEKKEN = _cased(r"\p{N}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_REST}"
)
_DIGIT, _DIGITS_BY_3 = r"\p{N}", r"\p{N}{1,3}"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_OF_DEEPSEEK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_WORDS_OF_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HANGUL = "[\uac00-\ud7a3\u3131-\u318e]+"
_MARKS_OF_YOUTU = (
    "[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
)
_BOPOMOFO = "[\u3105-\u312f]+"
_DEEPSEEK3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
)
_DEEPSEEK3 = (
    _DIGITS_BY_3,
    _CJK,
    rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_REST}",
)
_HAN = r"\p{Han}"
_KIMI_UPPER, _KIMI_LOWER = (
    rf"[\p{{{case}}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^{_HAN}]]" for case in (r"Lu}\p{Lt", "Ll")
)
_KIMI = (
    rf"{_HAN}+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_KIMI_UPPER}*{_KIMI_LOWER}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_KIMI_UPPER}+{_KIMI_LOWER}*{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
)
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-"
    "\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90"
    "-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-"
    "\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d"
    "\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)

Patterns = tuple[str, ...]
_BY_PATTERNS: list[tuple[Patterns, str]] = [
    (
        (LLAMA3,),
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx"
        " smaug-bpe chatglm-bpe glm4 glm5",
    ),
    (
        (GPT2,),
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert"
        " jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4",
    ),
    ((_DIGIT, GPT2), "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    (
        (QWEN2,),
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    ),
    ((_QWEN35,), "qwen35"),
    ((O200K,), "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m"),
    ((TEKKEN,), "tekken"),
    (_DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (
        (
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _CJK_OF_DEEPSEEK,
            r"\p{N}+",
        ),
        "deepseek-llm",
    ),
    ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_OF_DEEPSEEK, _DIGIT), "deepseek-coder"),
    (
        (
            _DIGITS_BY_3,
            _CJK,
            rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
            _DIGIT,
        ),
        "spark2_5",
    ),
    (
        (f"{_HANGUL}|{_MARKS_OF_YOUTU}|{_BOPOMOFO}|{_CJK}", _cased(_DIGIT, f"{_CONTRACTION}?")),
        "youtu",
    ),
    ((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"), "falcon"),
    ((_WORDS_OF_BLOOM,), "poro-chat bloom gpt3-finnish"),
    ((_WORDS_OF_BLOOM, _DIGIT), "viking"),
    ((r"\d{1,3}(?=(?:\d{3})*\b)", O200K), "tiny_aya cohere2moe"),
    (
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        "bailingmoe bailingmoe2 llada-moe",
    ),
    (
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_REST}",
        ),
        "seed-coder",
    ),
    (
        (rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}",),
        "ufakzeka",
    ),
    ((r"[^\n]+|[\n]+", QWEN2), "laguna"),
    (
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        "exaone-moe",
    ),
    ((_DIGITS_BY_3, _gpt4(r"\p{N}+")), "minicpm5"),
    ((_KIMI,), "kimi-k2"),
    (
        (
            _gpt4(r"\p{N}{1,3}").removesuffix(_REST)
            + r"\s*[\r\n]+|"
            + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
            + r"|\s{1}",
        ),
        "jais-2",
    ),
    ((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"), "default"),
]
PATTERNS: dict[str, Patterns] = {
    name: patterns for patterns, names in _BY_PATTERNS for name in names.split()
}
# Those that split only at line ends, write ▁ for a space, and have tokens of text instead of bytes.
TEXT_PATTERN = r"[^\n]+|[\n]+"
OF_TEXT = frozenset(("gemma4", "granite-embed-multi-311m", "sarvam-moe"))
# Those whose vocabulary is looked up for a whole piece before any merge.
WHOLE_PIECES_FIRST = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano minicpm5 youtu"
    " glm4 glm5 tekken granite-embed-multi-97m".split()
)
# Those to whose texts a BOS token is added unless the file has a setting for that.
ADDING_BOS = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken".split()
)
