"""Convert a tokenizer without tokenizer.json, and check the result against sentencepiece.

Part of the process that makes a converted copy (`hftool.models.conversion`).
"""

import json
import shutil
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json
from hftool.models.converted_copies import WEIGHT_SUFFIXES
from hftool.models.split_patterns import CL100K, GPT2, O200K, QWEN2
from hftool.tokenization.added_tokens import AddedTokens, text_of
from hftool.tokenization.python_tokenizer import PYTHON_TOKENIZER
from hftool.tokenization.sentencepiece_model import (
    INNER,
    SENTENCEPIECE,
    SentencePieces,
)
from hftool.tokenization.tokenizer import Tokenizer

SENTENCEPIECE_FILES = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model"),
    *("spm.model", "source.spm"),
)
TIKTOKEN_FILES = ("tokenizer.model", "tiktoken.model")
# How to split a text, by the number of tokens: of GPT-2, of GPT-4 (cl100k_base), of Qwen, of GPT-4o
# (o200k_base) and of Llama 4.
TIKTOKEN_SPLITS = {50256: GPT2, 100256: CL100K, 151643: QWEN2, 199998: O200K, 200000: O200K}
# The special tokens of those that are published as .tiktoken files, which don't have them.
TIKTOKEN_SPECIAL = {
    50256: {50256: "<|endoftext|>"},
    100256: {
        100257: "<|endoftext|>",
        100258: "<|fim_prefix|>",
        100259: "<|fim_middle|>",
        100260: "<|fim_suffix|>",
        100276: "<|endofprompt|>",
    },
    151643: {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"},
    199998: {199999: "<|endoftext|>", 200018: "<|endofprompt|>"},
}
# Spaces at either end and in the middle, what Unicode normalization changes, characters without
# tokens, the space symbol itself, line ends, and what is neither seen nor printed.
HARD_TEXTS = (
    *("Hello world", " Hello", "  Hello  world ", "\ta\tb\n\nc\r\n", "123456 3.14", "▁x ▁ y▁"),
    *("ﬁne ½ Ｆｕｌｌ ｶﾞ ™", "naïve cafe\u0301 日本 🙂👩\u200d👧", "a\u00a0b\u3000c\u200bd\ufeffe"),
    *(
        "don't—“stop”…",
        "İstanbul ß ǅ",
        "x\x00y\x07",
        "   ",
        "\n",
        "a",
        "the the thethe",
        "\u0915\u094d\u0937",
    ),
)

SYMBOLS = 100  # user-defined symbols to check; some models have thousands


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json and its settings for a folder that has only older tokenizer files.

    If a SentencePiece model is among them and splits some text differently, the target gets the
    model as well.

    Raises:
        HftoolError, ValueError, or what transformers raises: it can't convert them.
    """
    for path in source.iterdir():
        if path.is_file() and path.suffix not in WEIGHT_SUFFIXES and (bad := not_the_file(path)):
            raise HftoolError(f"{path.name}: {bad[0]}", bad[1])
    tokenizer = _read(source)
    if hasattr(tokenizer, "backend_tokenizer"):
        tokenizer.save_pretrained(target)
    else:
        _write_python_tokenizer(tokenizer, source, target)
    if (config := source / "config.json").is_file():  # has the number of embedding rows
        (target / "config.json").write_bytes(config.read_bytes())
    model = next((source / name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if model is not None and hasattr(tokenizer, "backend_tokenizer") and _is_sentencepiece(model):
        _hold_against(model, target, tokenizer, _declared(source))


def _read(source: Path) -> Any:
    """Return transformers' tokenizer of a folder.

    Raises:
        ValueError, or what transformers raises: it can't read it.
    """
    from transformers import AutoTokenizer
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = read_json(source / "config.json")
    settings = read_json(source / "tokenizer_config.json")
    code = settings.get("auto_map")
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    if (encoding := next(source.glob("*.tiktoken"), None)) and not code:
        return _read_tiktoken(encoding)
    known = config.get("model_type") or config.get("tokenizer_class")
    try:
        if known or settings.get("tokenizer_class"):
            tokenizer = AutoTokenizer.from_pretrained(source, **own)
        else:
            tokenizer = TokenizersBackend.from_pretrained(source, **own)
    except ValueError as error:
        if "contains custom code" in str(error):
            name = next(part for part in code if part) if isinstance(code, list) else code
            raise ValueError(
                f"its tokenizer is code of the repository ({name}), which hftool does not run"
            ) from None
        if "Couldn't instantiate the backend tokenizer" in str(error):
            raise ValueError(
                "its files don't tell which kind of tokenizer they are; name it in"
                ' tokenizer_config.json, as in {"tokenizer_class": "BertTokenizer"}'
            ) from None
        raise
    _restore_tiktoken_split(source, tokenizer)
    return tokenizer


def _write_python_tokenizer(tokenizer: Any, source: Path, target: Path) -> None:
    """Write a tokenizer that is Python code, with a tokenizer.json for everything but splitting.

    Raises:
        ValueError: tokenizers has no decoder that joins tokens as the code does, or the code needs
            a package.
    """
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Backend

    if getattr(tokenizer, "normalization", False) and getattr(tokenizer, "demojizer", 1) is None:
        raise ValueError("its tokenizer needs the package emoji: pip install emoji==0.6.0")
    # Not by save_pretrained, which some of these classes have got wrong.
    for path in source.iterdir():
        if path.is_file() and path.suffix not in (*WEIGHT_SUFFIXES, ".py"):
            shutil.copy(path, target / path.name)
    roles = {role: str(token) for role, token in tokenizer.special_tokens_map.items() if token}
    settings = {**roles, **read_json(source / "tokenizer_config.json")}
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    name = type(tokenizer).__name__
    (target / PYTHON_TOKENIZER).write_text(json.dumps({"class": name}), encoding="utf-8")
    vocabulary = tokenizer.get_vocab()
    backend = Backend(models.WordLevel(vocabulary, unk_token=str(tokenizer.unk_token)))
    added = sorted(tokenizer.added_tokens_decoder.items())
    backend.add_tokens([AddedToken(**token.__getstate__()) for _, token in added])
    backend.post_processor = _frame(tokenizer)
    texts = [text for text in HARD_TEXTS if tokenizer.unk_token not in text]
    unknown = str(tokenizer.unk_token)
    samples = [[t if t in vocabulary else unknown for t in tokenizer.tokenize(x)] for x in texts]
    for decoder in _joining_decoders():
        if all(decoder.decode(t) == tokenizer.convert_tokens_to_string(t) for t in samples):
            backend.decoder = decoder
            break
    else:
        raise ValueError(
            f"its tokenizer is Python code ({name}) that joins tokens in a way of its own"
        )
    backend.save(str(target / "tokenizer.json"))
    read = Tokenizer(target, name)
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if read.backend.encode(text, add_special_tokens=False).ids != ids:
            raise ValueError(f"its tokenizer is Python code ({name}) that hftool reads wrongly")


def _frame(tokenizer: Any) -> Any:
    """Return a post-processor that adds the special tokens around one or two texts."""
    from tokenizers import processors

    a, b = -1, -2  # in place of the texts' ids

    def template(ids: Sequence[int]) -> list[str]:
        names = {a: "$A", b: "$B"}
        return [names.get(i) or str(tokenizer.convert_ids_to_tokens(i)) for i in ids]

    single = template(tokenizer.build_inputs_with_special_tokens([a]))
    pair = template(tokenizer.build_inputs_with_special_tokens([a], [b]))
    special = {token for token in (*single, *pair) if not token.startswith("$")}
    return processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[
            (token, tokenizer.convert_tokens_to_ids(token)) for token in sorted(special)
        ],
    )


def _joining_decoders() -> list[Any]:
    """Return decoders in which transformers' Python tokenizers join tokens: with ## before or @@
    after a part of a word, with spaces, or without anything."""
    from tokenizers import Regex, decoders

    spaced = decoders.Replace(Regex("$"), " ")
    end: list[Any] = [decoders.Fuse(), decoders.Replace(Regex(" $"), "")]
    return [
        decoders.WordPiece("##", cleanup=False),
        decoders.Sequence([spaced, decoders.Replace("@@ ", ""), *end]),
        decoders.Sequence([spaced, *end]),
        decoders.Fuse(),
    ]


def _read_tiktoken(path: Path) -> Any:
    """Return the tokenizer of a `.tiktoken` file, as OpenAI publishes them.

    Raises:
        ValueError: it is not one of those that are known.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    count = _count_ranks(path)
    if count not in TIKTOKEN_SPECIAL:
        raise ValueError(
            f"how it splits a text is not in {path.name}, and hftool does not know a vocabulary of"
            f" {count:,} tokens"
        )
    special = TIKTOKEN_SPECIAL[count]
    ids = range(count, max(special) + 1)
    tokens = [special.get(i, f"<|reserved_token_{i}|>") for i in ids]
    convert: Any = TikTokenConverter
    create: Any = PreTrainedTokenizerFast
    converter = convert(str(path), TIKTOKEN_SPLITS[count], extra_special_tokens=tokens)
    return create(tokenizer_object=converter.converted())


def _restore_tiktoken_split(source: Path, tokenizer: Any) -> None:
    """Give a tokenizer of tiktoken's format the splits that its vocabulary was made with.

    They are not in its file; transformers has Llama 3's for all. The number of tokens tells which
    vocabulary it is.
    """
    from tokenizers import Regex, pre_tokenizers

    model = next((source / name for name in TIKTOKEN_FILES if (source / name).is_file()), None)
    if model is None or (model.name == "tokenizer.model" and _is_sentencepiece(model)):
        return
    if pattern := TIKTOKEN_SPLITS.get(_count_ranks(model)):
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


def _count_ranks(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _is_sentencepiece(model: Path) -> bool:
    """Return whether a file is a SentencePiece model; tiktoken's files can have the same name."""
    import sentencepiece

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (RuntimeError, OSError):
        return False
    return True


def _declared(source: Path) -> set[str]:
    """Return the tokens that a folder's settings declare special, beside those of its model."""
    import tokenizers

    empty = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokens = AddedTokens(source, read_json(source / "tokenizer_config.json"), empty)
    listed = {token.content for token in tokens.listed.values() if token.special}
    return {*listed, *tokens.texts.values(), *map(text_of, tokens.extra)}


def _hold_against(model: Path, target: Path, tokenizer: Any, declared: Set[str]) -> None:
    """Compare a converted tokenizer with its SentencePiece model. If they split a text differently,
    put the model beside the tokenizer, which then uses it.

    `declared` has the texts of special tokens, which sentencepiece does not know as such.

    Raises:
        ValueError: they split a text differently even then.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2
    spec = proto.ModelProto.FromString(model.read_bytes())
    path = target / "tokenizer.json"
    backend = _backend(path)
    pieces = SentencePieces(model, backend.token_to_id, tokenizer.unk_token_id)
    user_defined = {piece.piece for piece in spec.pieces if piece.type == piece.USER_DEFINED}
    symbols = user_defined - declared
    found = set(tokenizer.get_added_vocab()) - symbols
    texts = [text for text in _check_texts(symbols) if not any(token in text for token in found)]
    _restore_decoder(backend, pieces, spec, texts)
    backend.save(str(path))
    if not _first_difference(backend, pieces, texts):
        return
    (target / SENTENCEPIECE).write_bytes(model.read_bytes())
    if spec.normalizer_spec.add_dummy_prefix and not _prefixes_all(backend, found):
        spec.normalizer_spec.add_dummy_prefix = False
        (target / INNER).write_bytes(spec.SerializeToString())
    _leave_to_sentencepiece(target, symbols)
    backend = Tokenizer(target, model.name).backend
    if (text := _first_difference(backend, pieces, texts)) is not None:
        raise ValueError(f"its tokens differ from those of {model.name}, as for {text!r}")


def _check_texts(symbols: Iterable[str]) -> list[str]:
    around = (f"a{symbol}b {symbol} c  {symbol}{symbol}d" for symbol in sorted(symbols)[:SYMBOLS])
    return [*HARD_TEXTS, *around]


def _backend(path: Path) -> Any:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    return backend


def _prefixes_all(backend: Any, added: Set[str]) -> bool:
    """Return whether a text after an added token begins with the space symbol too."""
    after = (_ids(backend, f"{token}a") or [] for token in added if token.strip() == token)
    return any(ids[1:] == _ids(backend, "a") for ids in after)


def _ids(backend: Any, text: str) -> list[int] | None:
    try:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    except Exception:  # tokenizers raises Exception itself, if there is no unknown token
        return None
    return ids


def _first_difference(backend: Any, pieces: SentencePieces, texts: Sequence[str]) -> str | None:
    """Return the first text that a tokenizer splits in another way than sentencepiece."""
    return next((t for t in texts if _ids(backend, t) != [i for i, _ in pieces.encode(t)]), None)


def _restore_decoder(backend: Any, pieces: SentencePieces, spec: Any, texts: Sequence[str]) -> None:
    """Let a tokenizer decode as its SentencePiece model does, if that makes a difference."""
    from tokenizers import decoders

    processor = pieces.processor
    known = [ids for t in texts if processor.unk_id() not in (ids := processor.encode(t))]

    def wrong() -> int:
        return sum(
            processor.decode(ids) != backend.decode([pieces.ids[i] for i in ids]) for ids in known
        )

    before, original = wrong(), backend.decoder
    if not before:
        return
    spaces = spec.normalizer_spec.add_dummy_prefix or spec.normalizer_spec.remove_extra_whitespaces
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", int(spaces), 0),
        ]
    )
    if wrong() >= before:
        backend.decoder = original


def _leave_to_sentencepiece(folder: Path, tokens: Set[str]) -> None:
    """Remove added tokens from a folder's files: sentencepiece finds them by itself."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in tokens]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(listed := config.get(name), list):
            config[name] = [token for token in listed if text_of(token) not in tokens]
    listed = config.get("added_tokens_decoder") or {}
    config["added_tokens_decoder"] = {i: t for i, t in listed.items() if text_of(t) not in tokens}
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
