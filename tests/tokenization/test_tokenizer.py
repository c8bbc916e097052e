"""The tokenizer against transformers' own on the same folder, and streams against decoding."""

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.token_bytes import show_bytes
from hftool.tokenization.tokenizer import Tokenizer

PAGE = [
    "",
    " ",
    "good morning",
    "  two leading spaces, three trailing   ",
    "大家好，你是谁？",
    "こんにちは世界、東京タワー",
    "안녕하세요 세계",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε",
    "नमस्ते दुनिया, क्षत्रिय",
    "สวัสดีชาวโลก",
    "שלום עולם, مرحبا بالعالم",
    "mixed: abc אבג 123 ٤٥٦",
    "\u202eright to left\u202c",
    "👩\u200d👩\u200d👧\u200d👦 👍🏽 🇩🇪 🏳️\u200d🌈 ❤️",
    "naïve café: e\u0301 \u00e9 ﬁ Å",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠜎 \U0010ffff",
    "def f(x):\n\treturn {'a': x ** 2}  # 100%\n",
    "line one\r\nline two\r\n\r\n\tindented\t\ttwice",
    "zero\u200bwidth, nbsp\u00a0here, nul \x00 and bell \x07",
    "1234567890 3.14159 1e-05 0xFF",
    "don't, it's: I 'm , he 's ! we 've ? they 're . can n't",
    "http://example.org/a?b=c&d=%20#e",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "a <tool> cat <wide> <|begin|><image>the<stop> cats<|end|><bos><s></s>",
    "[CLS] a [MASK] of [UNK] [SEP]",
    "\ufeffbyte order mark, replacement \ufffd itself",
    "Donaudampfschifffahrtsgesellschaftskapitän",
    "a" * 300,
]
CORPUS = [*PAGE * 3, "the cat sat on the mat", "the hat of the cat", "nothing rhymes with month"]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def saved(backend: tokenizers.Tokenizer, folder: Path, **config: Any) -> Path:
    """Save a tokenizer and its config in the files that models have."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def gemma_like(folder: Path) -> Path:
    """BPE over characters, '▁' for the space, bytes where the vocabulary has no character."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTE_TOKENS]
    tokens += ["▁", *"abcdefghijklmnopqrstuvwxyz.,é大", "th", "the", "▁the", "at", "▁▁", "\n"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "t"), ("▁", "▁")]
    vocab = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return saved(
        backend,
        folder,
        tokenizer_class="GemmaTokenizer",
        add_bos_token=True,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def llama2_like(folder: Path) -> Path:
    """Like Llama 2's: it puts a '▁' before every text, which the decoder removes."""
    tokens = ["<unk>", "<s>", "</s>", *BYTE_TOKENS, "▁", *"abcdefghijklmnopqrst", "th", "▁th"]
    vocab = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(
        vocab, [("t", "h"), ("▁", "th")], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return saved(backend, folder, add_bos_token=True, add_eos_token=True, **ends)


def unigram(folder: Path) -> Path:
    """Like T5's: Unigram with Metaspace, and a template that ends each text."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", backend.token_to_id("</s>"))]
    )
    return saved(backend, folder, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def wordpiece(folder: Path) -> Path:
    """Like BERT's, with a tokenizer_config.json that lets decoded text be cleaned up."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    around = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=around
    )
    roles = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return saved(backend, folder, clean_up_tokenization_spaces=True, unk_token="[UNK]", **roles)


def byte_level(folder: Path, **config: Any) -> Path:
    """Like GPT-2's, with nothing around a text except what `config` requests."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return saved(backend, folder, **{"eos_token": "<|end|>", **config})


def with_gap(folder: Path) -> Path:
    """Byte-level BPE with the unused ids 256 to 259."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: i for i, character in enumerate(alphabet)} | {"th": 260, "the": 261}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return saved(backend, folder)


def truncating(folder: Path) -> Path:
    """A tokenizer.json that truncates and pads, like those of many classifiers."""
    backend = tokenizers.Tokenizer.from_file(str(byte_level(folder) / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64, pad_token="<|end|>")
    return saved(backend, folder, eos_token="<|end|>", pad_token="<|end|>")


def added(content: str, special: bool, **flags: bool) -> dict[str, Any]:
    """A token as tokenizer_config.json lists it."""
    plain = {"lstrip": False, "normalized": not special, "rstrip": False, "single_word": False}
    return {"content": content, "special": special, **plain, **flags}


ADDED = {
    "500": added("<tool>", special=True),
    "501": added("cat", special=False),
    "502": added("<wide>", special=False, lstrip=True, rstrip=True),
}


def listing_more(folder: Path) -> Path:
    """Tokens of tokenizer_config.json that tokenizer.json does not have."""
    return byte_level(folder, added_tokens_decoder=ADDED)


def naming_more(folder: Path) -> Path:
    """Special tokens that are only in the roles of tokenizer_config.json."""
    return byte_level(
        folder,
        bos_token="<|begin|>",
        pad_token={"__type": "AddedToken", **added("<pad>", special=True)},
    )


def bos_only(folder: Path) -> Path:
    """A tokenizer_config.json that requests one of two special tokens around a text."""
    return byte_level(folder, bos_token="<|begin|>", add_bos_token=True, add_eos_token=False)


def extra_special(folder: Path) -> Path:
    """Special tokens without a role."""
    return byte_level(folder, additional_special_tokens=["<tool>", "the"], image_token="<image>")


def role_not_special(folder: Path) -> Path:
    """An end token that is not special in tokenizer.json."""
    backend = tokenizers.Tokenizer.from_file(str(byte_level(folder) / "tokenizer.json"))
    backend.add_tokens(["<stop>"])
    return saved(backend, folder, eos_token="<stop>")


Builder = Callable[[Path], Path]
BUILDERS: list[Builder] = [
    gemma_like,
    llama2_like,
    unigram,
    wordpiece,
    byte_level,
    with_gap,
    truncating,
    listing_more,
    naming_more,
    bos_only,
    extra_special,
    role_not_special,
]


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def small_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a small tokenizer of each kind."""
    builder: Builder = request.param
    return builder(tmp_path / "tokenizer")


@cache
def oracle(folder: Path) -> Any:
    """Transformers' tokenizer of a folder."""
    return AutoTokenizer.from_pretrained(str(folder))


def assert_equal_on(page: Sequence[str], folder: Path) -> None:
    """Ids and texts equal those of transformers, with and without special tokens."""
    ours, theirs = Tokenizer(folder, "ours"), oracle(folder)
    for text in page:
        for special in (True, False):
            ids = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, special).ids == ids, (text, special)
            for skip in (True, False):
                expected = theirs.decode(ids, skip_special_tokens=skip)
                assert ours.decode(ids, skip) == expected, (text, special, skip)


def test_smollm2_encodes_and_decodes_as_transformers(smollm2_folder: Path) -> None:
    assert_equal_on(PAGE, smollm2_folder)


def test_minilm_encodes_and_decodes_as_transformers(minilm_folder: Path) -> None:
    ids = Tokenizer(minilm_folder, "minilm").encode("hello", special=True).tokens
    assert ids == ["[CLS]", "hello", "[SEP]"]
    assert_equal_on(PAGE, minilm_folder)


def test_small_tokenizers_encode_and_decode_as_transformers(small_folder: Path) -> None:
    assert_equal_on(PAGE, small_folder)


def test_small_tokenizers_have_the_same_added_tokens(small_folder: Path) -> None:
    def told(tokens: dict[int, tokenizers.AddedToken]) -> dict[int, tuple[str, bool]]:
        return {i: (token.content, token.special) for i, token in tokens.items()}

    theirs = oracle(small_folder)
    ours = Tokenizer(small_folder, "small")
    assert told(ours.added_tokens) == told(theirs.added_tokens_decoder)
    assert ours.size == max(theirs.get_vocab().values()) + 1


def test_random_ids_decode_as_transformers(small_folder: Path) -> None:
    ours, theirs = Tokenizer(small_folder, "small"), oracle(small_folder)
    choose = random.Random(3)
    for _ in range(100):
        ids = [choose.randrange(ours.size) for _ in range(choose.randint(0, 12))]
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip), ids


def test_special_tokens_have_their_roles(tmp_path: Path) -> None:
    for folder in (naming_more(tmp_path / "naming"), extra_special(tmp_path / "extra")):
        theirs = oracle(folder)
        assert Tokenizer(folder, "small").special_tokens == theirs.special_tokens_map


def test_special_tokens_map_names_roles(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    (folder / "special_tokens_map.json").write_text('{"bos_token": {"content": "<|begin|>"}}')
    assert Tokenizer(folder, "small").special_tokens["bos_token"] == "<|begin|>"
    assert_equal_on(["a<|begin|>b"], folder)


def test_cleaning_up_is_not_for_bpe(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, clean_up_tokenization_spaces=True)
    assert Tokenizer(folder, "small").decode(oracle(folder).encode("a , b .")) == "a , b ."


TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [TEMPLATE, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATE}]],
    ids=["one", "named"],
)
def test_chat_template_of_the_config(tmp_path: Path, template: Any) -> None:
    folder = byte_level(tmp_path, chat_template=template)
    assert Tokenizer(folder, "small").chat_template == TEMPLATE
    assert oracle(folder).get_chat_template() == TEMPLATE


def test_chat_template_in_a_file_comes_first(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, chat_template="of the config")
    (folder / "chat_template.jinja").write_text("of the file é", encoding="utf-8")
    assert Tokenizer(folder, "small").chat_template == "of the file é"
    assert oracle(folder).get_chat_template() == "of the file é"


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "[" * 100_000])
def test_broken_file_is_an_error_that_names_it(tmp_path: Path, broken: str, content: str) -> None:
    folder = byte_level(tmp_path)
    (folder / broken).write_text(content)
    with pytest.raises(HftoolError, match=broken):
        Tokenizer(folder, "small")


def test_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HftoolError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path, "none")


def test_read_json_of_no_file_is_empty(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") == {}


@pytest.fixture(scope="session")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer with a token for each byte and few characters."""
    return Tokenizer(gemma_like(tmp_path_factory.mktemp("fallback")), "fallback")


@pytest.fixture(scope="session")
def prepending(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Like `fallback`, with a decoder that removes the first space of a text."""
    return Tokenizer(llama2_like(tmp_path_factory.mktemp("prepending")), "prepending")


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level tokenizer with a token for every byte."""
    return Tokenizer(byte_level(tmp_path_factory.mktemp("alphabet")), "alphabet")


# Round trips


# SmolLM2's vocabulary has no token for these bytes of UTF-8, alone or in any longer token.
ABSENT = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}


@settings(deadline=None, max_examples=200)
@given(st.text().filter(lambda text: not ABSENT & set(text.encode())))
@example("\r\n\t \u200d\ufeff\ufffd\U0010ffff")
@example("<|im_start|>")
def test_smollm2_decodes_a_text_to_itself(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, special=False).ids) == text


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_byte_level_decodes_any_text_to_itself(alphabet: Tokenizer, text: str) -> None:
    assert alphabet.decode(alphabet.encode(text, special=False).ids) == text


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_byte_fallback_decodes_any_text_to_itself(fallback: Tokenizer, text: str) -> None:
    spaces = text.replace("▁", " ")  # Gemma's character for the space is decoded to a space
    assert fallback.decode(fallback.encode(text, special=False).ids) == spaces


# Kinds of tokens


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token as it is stored."""
    token_id = tokenizer.backend.token_to_id(token)
    assert token_id is not None
    return token_id


def test_kinds_of_a_byte_fallback_vocabulary(fallback: Tokenizer) -> None:
    tokens = ("<bos>", "<0x41>", "<0xE5>", "▁the")
    kinds = [fallback.kind(id_of(fallback, token)) for token in tokens]
    assert kinds == ["special", "byte", "byte", "normal"]
    assert fallback.kind(fallback.size) == "unused"


def test_bytes_and_texts_of_a_byte_fallback_vocabulary(fallback: Tokenizer) -> None:
    for byte in range(256):
        token_id = id_of(fallback, f"<0x{byte:02X}>")
        assert fallback.token_bytes(token_id) == bytes([byte])
        text = chr(byte) if byte < 0x80 else f"<0x{byte:02X}>"
        assert fallback.token_text(token_id) == text
    assert fallback.token_bytes(id_of(fallback, "▁the")) == b" the"
    assert fallback.token_bytes(id_of(fallback, "<bos>")) is None


def test_kinds_of_added_tokens(tmp_path: Path) -> None:
    listed = Tokenizer(listing_more(tmp_path), "listed")
    kinds = [listed.kind(token_id) for token_id in (500, 501, 502, 503)]
    assert kinds == ["special", "added", "added", "unused"]
    assert listed.token_bytes(501) == b"cat"


def test_half_a_character_is_shown_by_its_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("佽", special=False).ids
    assert len(ids) > 1
    assert "".join(map(tokenizer.token_text, ids)) == "<0xE4><0xBD><0xBD>"
    assert {tokenizer.kind(i) for i in ids} == {"byte"}


@pytest.mark.parametrize("builder", [llama2_like, unigram, gemma_like])
def test_a_token_that_begins_with_a_space_is_shown_with_it(builder: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer(builder(tmp_path), "tiny")
    marked = {
        token: token_id
        for token, token_id in tokenizer.backend.get_vocab().items()
        if token.startswith("▁") and token.count("▁") == 1
    }
    assert len(marked) > 1
    for token, token_id in marked.items():
        assert tokenizer.token_text(token_id) == " " + token[1:]
        assert tokenizer.single_text(token_id) == tokenizer.decode([token_id])


def test_replacement_character_itself_is_shown_as_it_is(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(byte_level(tmp_path) / "tokenizer.json"))
    backend.add_tokens(["\ufffd"])
    replacing = Tokenizer(saved(backend, tmp_path), "replacing")
    assert replacing.token_text(replacing.size - 1) == "\ufffd"


def test_show_bytes() -> None:
    assert show_bytes(b"\xe4\x0a") == "<0xE4><0x0A>"


# Decoders


def with_decoder(
    folder: Path, tokens: Sequence[str], decoder: decoders.Decoder | None, **settings: Any
) -> Tokenizer:
    """A tokenizer with these tokens, which joins no characters itself."""
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [], **settings))
    backend.decoder = decoder
    return Tokenizer(saved(backend, folder), "decoding")


Decoders = decoders.Sequence
WORD_CASES = [  # the decoder, the tokens, their bytes inside a text, and the text of all
    (decoders.Metaspace(), ["a▁b", "▁c", "▁▁d"], [b"a b", b" c", b"  d"], "a b c  d"),
    (decoders.Metaspace(), ["▁▁a", "b"], [b"  a", b"b"], " ab"),
    (decoders.BPEDecoder("</w>"), ["a", "b</w>", "c</w>"], [b"a", b"b ", b"c "], "ab c"),
    (decoders.WordPiece(), ["do", "##n", "t", "."], [b"do", b"n", b"t", b"."], "don t."),
    (
        decoders.CTC(),
        ["a", "a", "<pad>", "a", "|", "b"],
        [b"a", b"a", b"", b"a", b" ", b"b"],
        "aa b",
    ),
    (
        Decoders([decoders.Replace("_", " "), decoders.Replace("#", "_"), decoders.Fuse()]),
        ["_a#", "#_b"],
        [b" a_", b"_ b"],
        " a__ b",
    ),
    (
        Decoders([decoders.Replace(tokenizers.Regex("x+"), " "), decoders.Strip("-", 1, 0)]),
        ["--axx", "-b"],
        [b"-a ", b"b"],
        "-a b",
    ),
    (
        Decoders([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        [" a", "<0xc3>", "<0xA9>", " "],
        [b" a", b"\xc3", b"\xa9", b" "],
        "aé ",
    ),
    (
        Decoders([decoders.ByteLevel(), decoders.Replace("-", "+")]),
        ["Ġa-", "Ã", "©", "é a"],
        [b" a+", b"\xc3", b"\xa9", "é a".encode()],
        " a+éé a",
    ),
]


@pytest.mark.parametrize(("decoder", "tokens", "data", "text"), WORD_CASES)
def test_bytes_texts_and_decode_agree(
    decoder: decoders.Decoder, tokens: list[str], data: list[bytes], text: str, tmp_path: Path
) -> None:
    tokenizer = with_decoder(tmp_path, dict.fromkeys(tokens), decoder)  # type: ignore[arg-type]
    ids = [id_of(tokenizer, token) for token in tokens]
    assert list(map(tokenizer.token_bytes, ids)) == data
    assert tokenizer.decode(ids) == text
    if not isinstance(decoder, decoders.WordPiece):
        assert [tokenizer.token_text(i) for i in ids] == [
            show_bytes(d) if d in (b"\xc3", b"\xa9") else d.decode() for d in data
        ]
    assert_decodes(tokenizer, ids, skip=False)


def test_added_tokens_beyond_ascii_are_their_own_text(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(byte_level(tmp_path) / "tokenizer.json"))
    contents = ["größe", "č", "đem", "ĠX", "a\tb", "ﬁn", "日本"]
    backend.add_tokens(contents)
    backend.add_special_tokens(["<|é|>", "<｜begin▁of▁text｜>"])
    tokenizer = Tokenizer(saved(backend, tmp_path), "added")
    for content in (*contents, "<|é|>", "<｜begin▁of▁text｜>"):
        ids = tokenizer.encode(content, special=False).ids
        assert len(ids) == 1
        assert tokenizer.token_text(ids[0]) == tokenizer.single_text(ids[0]) == content
        data = None if content.startswith("<") else content.encode()
        assert tokenizer.token_bytes(ids[0]) == data
        around = [*tokenizer.encode("Ġé ", False).ids, *ids, *tokenizer.encode("大", False).ids]
        assert tokenizer.decode(around) == f"Ġé {content}大"
        assert_decodes(tokenizer, around, skip=False)
        assert tokenizer.decode(around, skip_special=True).startswith("Ġé ")


def test_clip_writes_a_space_at_the_end_of_a_word(tmp_path: Path) -> None:
    """CLIP's tokenizer.json says "</w>" in the model only; transformers' class replaces it."""
    from transformers import CLIPTokenizer

    tokens = ["<|startoftext|>", "<|endoftext|>", *"ab", "a</w>", "b</w>", "ab</w>", "Ã©</w>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges: Any = [("a", "b</w>")]
    theirs = CLIPTokenizer(vocab=vocab, merges=merges)
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer(tmp_path, "clip")
    ids = ours.encode("ab a é", special=False).ids
    ids = [*ids, id_of(ours, "a"), id_of(ours, "Ã©</w>"), id_of(ours, "ab</w>")]
    for part in (ids, ids[:1], [0, *ids, 1]):
        assert ours.decode(part) == theirs.decode(part)
        assert_decodes(ours, part, skip=False)
    assert ours.token_bytes(id_of(ours, "Ã©</w>")) == "é ".encode()
    assert [ours.token_text(id_of(ours, t)) for t in ("ab</w>", "a")] == ["ab ", "a"]


def test_a_decoder_that_fails_is_an_error(tmp_path: Path) -> None:
    tokenizer = with_decoder(tmp_path, [" ", "a"], decoders.Strip(" ", 1, 1))
    assert tokenizer.decode([1, 1]) == "aa"
    with pytest.raises(HftoolError, match="the decoder of decoding fails"):
        tokenizer.decode([0])


# Incremental decoding


def test_spaces_are_cleaned_up_in_a_stream_too(tmp_path: Path) -> None:
    tokenizer = Tokenizer(wordpiece(tmp_path), "cleaning")
    assert tokenizer.cleans_up
    for text in (*PAGE, "a , b . ' c ' n 't , . , d . ", "the hat . the cat"):
        ids = tokenizer.encode(text, special=False).ids
        decoder = IncrementalDecoder(tokenizer, skip_special=False)
        pieces = list(map(decoder.step, ids))
        assert "".join(pieces) + decoder.end() == tokenizer.decode(ids)
    ids = tokenizer.encode("the hat . the cat", special=False).ids
    assert any(map(IncrementalDecoder(tokenizer, skip_special=False).step, ids))


def assert_decodes(tokenizer: Tokenizer, ids: Sequence[int], skip: bool) -> None:
    """Assert that the text so far is always a prefix of `decode`, and all of it in the end."""
    decoder = IncrementalDecoder(tokenizer, skip_special=skip)
    shown = ""
    for count, token_id in enumerate(ids, 1):
        shown += decoder.step(token_id)
        assert tokenizer.decode(ids[:count], skip).startswith(shown)
    held = decoder.end()
    rest = tokenizer.decode(ids, skip)[len(shown) :]
    assert held == rest or ("\ufffd" in rest and "<0x" in held)
    assert "\ufffd" not in held or "\ufffd".encode() in joined_bytes(tokenizer, ids)


def joined_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    """Join the bytes of tokens."""
    return b"".join(tokenizer.token_bytes(token_id) or b"" for token_id in ids)


LOW, ANY = st.integers(0, 300), st.integers(0, 49151)  # single bytes are among the low ids


@settings(deadline=None, max_examples=200)
@given(ids=st.lists(LOW | ANY, max_size=12), skip=st.booleans())
def test_decoding_any_ids(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    assert_decodes(tokenizer, ids, skip)


def bytes_and_others(size: int) -> st.SearchStrategy[list[int]]:
    """Generate ids with many bytes: of complete, incomplete and invalid characters."""
    byte = st.integers(3, 270).filter(lambda i: i < size)
    characters = st.characters(min_codepoint=0x80, codec="utf-8").map(
        lambda c: [i + 5 for i in c.encode()]
    )
    runs = st.one_of(characters, st.lists(byte, max_size=3), st.lists(st.integers(0, size - 1)))
    return st.lists(runs, max_size=5).map(lambda parts: [i for part in parts for i in part])


@settings(deadline=None, max_examples=300)
@given(ids=bytes_and_others(280), skip=st.booleans())
def test_decoding_any_bytes(
    fallback: Tokenizer, prepending: Tokenizer, ids: list[int], skip: bool
) -> None:
    assert_decodes(fallback, ids, skip)
    assert_decodes(prepending, ids, skip)


@pytest.mark.parametrize("text", PAGE)
def test_decoding_a_text_gives_the_text(
    tokenizer: Tokenizer, fallback: Tokenizer, prepending: Tokenizer, text: str
) -> None:
    for each in (tokenizer, fallback, prepending):
        ids = each.encode(text, special=False).ids
        decoder = IncrementalDecoder(each, skip_special=False)
        pieces = [decoder.step(token_id) for token_id in ids]
        assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)
        assert "".join(pieces) + decoder.end() == each.decode(ids)


def test_a_character_is_held_back_until_it_is_complete(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("佽a", special=False).ids
    decoder = IncrementalDecoder(tokenizer, skip_special=False)
    pieces = [decoder.step(token_id) for token_id in ids]
    assert pieces == [""] * (len(ids) - 2) + ["佽", "a"]


def test_the_end_shows_the_bytes_of_half_a_character(tokenizer: Tokenizer) -> None:
    decoder = IncrementalDecoder(tokenizer, skip_special=False)
    for token_id in tokenizer.encode("a佽", special=False).ids[:-1]:
        decoder.step(token_id)
    assert decoder.end() == "<0xE4><0xBD>"
    assert decoder.end() == ""


def test_the_end_shows_whole_characters_before_the_bytes(fallback: Tokenizer) -> None:
    ids = [i + 5 for i in "🇩é".encode()][:-1]
    decoder = IncrementalDecoder(fallback, skip_special=False)
    assert "".join(map(decoder.step, ids)) == ""
    assert decoder.end() == "🇩<0xC3>"


def test_an_invalid_byte_after_valid_ones(fallback: Tokenizer) -> None:
    """A newline, half a character, a letter: a model may write that at a high temperature."""
    ids = [0x0A + 5, 0xE5 + 5, id_of(fallback, "a")]
    decoder = IncrementalDecoder(fallback, skip_special=False)
    assert "".join(map(decoder.step, ids)) == fallback.decode(ids) == "\ufffd\ufffda"


def test_special_tokens_are_left_out(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|im_end|>b", special=False).ids
    for skip, expected in ((True, "ab"), (False, "a<|im_end|>b")):
        decoder = IncrementalDecoder(tokenizer, skip_special=skip)
        assert "".join(map(decoder.step, ids)) + decoder.end() == expected


@pytest.mark.parametrize(
    "listed", [{"x": {"content": "q"}}, {"900": "q"}, {"900": {"content": 5}}, [1]]
)
def test_broken_added_tokens_are_an_error(listed: Any, tmp_path: Path) -> None:
    folder = byte_level(tmp_path, added_tokens_decoder=listed)
    with pytest.raises(HftoolError, match="added tokens"):
        Tokenizer(folder, "broken")
