"""Tokenizers made at random: ids, bytes, spans, the round trip and streams, against the tokenizers
library and against each other.

`make fuzz` makes 10,000 of them (FUZZ_TOKENIZERS).
"""

import os
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from hftool.errors import HftoolError
from hftool.output.token_spans import encoded_spans
from hftool.tokenization.encode import encode_texts
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.records import Encoded
from hftool.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_tokenizer import BYTE_TOKENS, saved

COUNT = int(os.environ.get("FUZZ_TOKENIZERS", "300"))
GROUPS = 20
LETTERS = [*"abcde'.,-1 ", " ", " ", "é", "e\u0301", "ü", "u\u0308", "大", "家", "ﬁ", "İ", "½", "▁"]
LETTERS += [
    "ǵ",
    "g\u0301",
    "\u1100\u1161",
    "👩\u200d👧",
    "\n",
    "\t",
    "''",
    "  ",
    "\u00a0",
    "ß",
    "č",
]
REMOVED = "-"  # what splitters of these tokenizers remove, apart from white space


def a_text(draw: random.Random, most: int = 14) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(0, most)))


def some(draw: random.Random, choices: Sequence[Any], most: int) -> list[Any]:
    return [draw.choice(choices)() for _ in range(draw.randint(0, most))]


def a_normalizer(draw: random.Random) -> Any:
    steps = some(
        draw,
        [
            *(normalizers.NFC, normalizers.NFKC, normalizers.NFD, normalizers.NFKD),
            *(normalizers.Lowercase, normalizers.StripAccents, normalizers.BertNormalizer),
            lambda: normalizers.Replace(" ", "▁"),
            lambda: normalizers.Replace("''", '"'),
            lambda: normalizers.Replace(Regex(" +"), " "),
            lambda: normalizers.Replace("a", "bab"),
            lambda: normalizers.Prepend(draw.choice(["▁", " ", "xy"])),
            lambda: normalizers.Strip(draw.random() < 0.5, draw.random() < 0.5),
            normalizers.Nmt,
        ],
        3,
    )
    return normalizers.Sequence(steps) if steps else None


def a_splitter(draw: random.Random) -> Any:
    schemes: Any = ["always", "first", "never"]
    steps = some(
        draw,
        [
            *(pre_tokenizers.WhitespaceSplit, pre_tokenizers.Whitespace),
            *(pre_tokenizers.BertPreTokenizer, pre_tokenizers.Punctuation),
            lambda: pre_tokenizers.Digits(individual_digits=draw.random() < 0.5),
            lambda: pre_tokenizers.Metaspace(
                prepend_scheme=draw.choice(schemes), split=draw.random() < 0.5
            ),
            lambda: pre_tokenizers.Split(REMOVED, "removed"),
            lambda: pre_tokenizers.Split(" ", "merged_with_next"),
            lambda: pre_tokenizers.Split(Regex("[ae]"), "isolated"),
        ],
        2,
    )
    return pre_tokenizers.Sequence(steps) if steps else None


def a_decoder_step(draw: random.Random) -> Any:
    return draw.choice(
        [
            decoders.Metaspace(prepend_scheme=draw.choice(["always", "never"])),
            decoders.Replace("▁", " "),
            decoders.Replace(Regex("a+"), "o"),
            decoders.Replace("ab", "ba"),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", draw.randint(0, 2), 0),
            decoders.WordPiece(cleanup=draw.random() < 0.5),
            decoders.BPEDecoder("</w>"),
            decoders.CTC("<pad>", "▁", draw.random() < 0.5),
        ]
    )


def a_decoder(draw: random.Random, usual: Any) -> Any:
    """Most often the one that belongs to the model; else any steps."""
    if draw.random() < 0.6:
        return usual
    steps = [a_decoder_step(draw) for _ in range(draw.randint(0, 3))]
    if draw.random() < 0.2:
        steps.insert(draw.randint(0, len(steps)), decoders.ByteLevel())
    return decoders.Sequence(steps) if steps else None


def vocabulary(
    draw: random.Random, parts: list[str], prefix: str = "", suffix: str = ""
) -> list[str]:
    """Return characters, and pieces of some parts of texts, some of them inside a word."""
    characters = sorted({character for part in parts for character in part})
    tokens = {character for character in characters if draw.random() < 0.9}
    for part in parts:
        start = draw.randint(0, len(part))
        piece = part[start : start + draw.randint(1, 4)]
        if piece:
            tokens.add((prefix if start else "") + piece + (suffix if draw.random() < 0.5 else ""))
    if prefix or suffix:
        tokens |= {prefix + t for t in sorted(tokens) if draw.random() < 0.7}
        tokens |= {t + suffix for t in sorted(tokens) if draw.random() < 0.7}
    return sorted(tokens)


def merges_of(draw: random.Random, tokens: Sequence[str]) -> list[tuple[str, str]]:
    known, pairs = set(tokens), []
    for token in sorted(tokens, key=len):
        cuts = [i for i in range(1, len(token)) if token[:i] in known and token[i:] in known]
        if cuts:
            cut = draw.choice(cuts)
            pairs.append((token[:cut], token[cut:]))
    return pairs


def a_tokenizer(draw: random.Random) -> tokenizers.Tokenizer:
    """Return a tokenizer of any kind."""
    normalizer, splitter = a_normalizer(draw), a_splitter(draw)
    kind = draw.choice(["byte-level", "bytes", "suffix", "wordpiece", "unigram", "wordlevel"])
    if kind == "byte-level":
        last = pre_tokenizers.ByteLevel(
            add_prefix_space=draw.random() < 0.3, use_regex=draw.random() < 0.5
        )
        splitter = pre_tokenizers.Sequence([splitter, last]) if splitter else last
    parts = []
    for _ in range(30):
        text = a_text(draw)
        text = normalizer.normalize_str(text) if normalizer else text
        parts += [p for p, _ in splitter.pre_tokenize_str(text)] if splitter else [text]
    unknown = "<unk>" if draw.random() < 0.8 else None
    listed = ["<unk>"] if unknown and draw.random() < 0.9 else []
    if kind == "byte-level":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        lost = set(draw.sample(alphabet, 3)) if draw.random() < 0.2 else set()
        listed += [t for t in dict.fromkeys([*alphabet, *vocabulary(draw, parts)]) if t not in lost]
        usual: Any = decoders.ByteLevel()
    elif kind == "bytes":
        listed += [*BYTE_TOKENS, *vocabulary(draw, parts)]
        usual = decoders.Sequence(
            [
                *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
                *[decoders.Strip(" ", 1, 0)] * draw.randint(0, 1),
            ]
        )
    elif kind == "suffix":
        listed += vocabulary(draw, parts, suffix="</w>")
        usual = decoders.BPEDecoder("</w>") if draw.random() < 0.7 else decoders.Fuse()
    elif kind == "wordpiece":
        listed += vocabulary(draw, parts, prefix="##")
        usual = decoders.WordPiece("##", draw.random() < 0.5)
    else:
        listed += vocabulary(draw, parts) + (parts if kind == "wordlevel" else [])
        usual = decoders.Metaspace(prepend_scheme="always" if draw.random() < 0.6 else "never")
    tokens = list(dict.fromkeys(filter(None, listed))) or ["a"]
    vocab = {token: i for i, token in enumerate(tokens)}
    model: Any
    if kind == "unigram":
        scores = [(token, -draw.uniform(1, 9)) for token in tokens]
        model = models.Unigram(scores, 0 if unknown in vocab else None, False)
    elif kind == "wordpiece":
        model = models.WordPiece(vocab, unk_token=unknown or "[UNK]")
    elif kind == "wordlevel":
        model = models.WordLevel(vocab, unk_token=unknown or "[UNK]")
    else:
        settings: dict[str, Any] = {"unk_token": unknown} if kind != "byte-level" else {}
        if kind == "suffix":
            settings["end_of_word_suffix"] = "</w>"
        model = models.BPE(
            vocab,
            merges_of(draw, tokens),
            byte_fallback=kind == "bytes",
            fuse_unk=draw.random() < 0.5,
            ignore_merges=draw.random() < 0.2,
            **settings,
        )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = a_decoder(draw, usual)
    for _ in range(draw.randint(0, 3)):
        content = draw.choice(["<s>", "<pad>", "ab", "é", "<č>", "大家", "▁▁", "größe", "a b"])
        flags = {
            flag: draw.random() < 0.3 for flag in ("lstrip", "rstrip", "single_word", "special")
        }
        backend.add_tokens([AddedToken(content, normalized=draw.random() < 0.3, **flags)])
    return backend


def encoded(tokenizer: Tokenizer, text: str) -> Encoded | None:
    """Return a text's tokens; None if a character has none, which is an error or a warning."""
    try:
        (record,) = encode_texts(tokenizer, [text], special=False)
    except HftoolError as error:
        with pytest.raises(Exception, match=r"(?i)unk"):
            tokenizer.backend.encode(text)
        assert " has no token for “" in error.message, (text, error)
        return None
    return record


def check_spans(tokenizer: Tokenizer, record: Encoded) -> None:
    text, before = record.text, 0
    covered = [False] * len(text)
    for start, end in record.offsets:
        assert 0 <= start <= end <= len(text), record
        assert start >= before or start == end or tokenizer.backend.normalizer, record
        before = start
        covered[start:end] = [True] * (end - start)
    spans = list(encoded_spans(record))
    assert [i for span in spans for i in span.tokens] == list(range(record.count)), record
    left_out = {i for a, b in tokenizer._unknown.spans(text) for i in range(a, b)}
    for i, is_covered in enumerate(covered if not left_out else []):
        if not is_covered and not text[i].isspace() and text[i] != REMOVED:
            assert not is_needed(tokenizer.backend, text, i), (record, i)


def is_needed(backend: tokenizers.Tokenizer, text: str, i: int) -> bool:
    """Return whether a character has a part in what the normalizer and the splitter leave."""

    def left(text: str) -> list[str]:
        text = backend.normalizer.normalize_str(text) if backend.normalizer else text
        parts = (
            backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, 0)]
        )
        return [part for part, _ in parts]

    without, space = text[:i] + text[i + 1 :], text[:i] + " " + text[i + 1 :]
    return "".join(left(text)) not in ("".join(left(without)), "".join(left(space)))


def is_as_in_library(tokenizer: Tokenizer, ids: Sequence[int], skip: bool) -> bool:
    """Return whether `decode` should give what the library's does: see `Detokenizer._spelling`."""
    if tokenizer._word_end or (
        "ByteLevel" in tokenizer._step_types and not tokenizer._is_byte_level
    ):
        return False
    names = [tokenizer.backend.id_to_token(i) or "" for i in ids]
    kept = [n for i, n in zip(ids, names, strict=True) if not (skip and i in tokenizer.skipped)]
    if tokenizer._space_at_start and kept and "▁" in kept[0][1:]:
        return False
    # The library has the name that a normalizer makes of an added token.
    added = [(tokenizer.added_tokens.get(i), n) for i, n in zip(ids, names, strict=True)]
    renamed = any(token is not None and name != token.content for token, name in added)
    if (skip or tokenizer._is_byte_level) and renamed:
        return False
    return not tokenizer._is_byte_level or all(n.isascii() for token, n in added if token)


def check_decoding(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    try:
        text = tokenizer.decode(ids, skip)
    except HftoolError:
        return  # Strip of the library fails for texts that are too short
    if is_as_in_library(tokenizer, ids, skip):
        assert text == tokenizer.backend.decode(ids, skip_special_tokens=skip), ids
    decoder = IncrementalDecoder(tokenizer, skip_special=skip)
    shown = ""
    for token_id in ids:
        shown += decoder.step(token_id)
        assert text.startswith(shown), (text, shown)
    held = decoder.end()
    assert shown + held == text or ("\ufffd" in text and "<0x" in held), (text, shown, held)


def check_bytes(tokenizer: Tokenizer, ids: list[int]) -> None:
    """The bytes of the tokens are the text, apart from spaces between and around words."""
    if tokenizer.joins_tokens or "CTC" in tokenizer._step_types:
        return
    if ids and (tokenizer.backend.id_to_token(ids[0]) or "").startswith("##"):
        return  # the decoder keeps that at the beginning
    data = [tokenizer.token_bytes(i) for i in ids]
    pieces = [
        (tokenizer.backend.id_to_token(i) or "").encode() if d is None else d
        for i, d in zip(ids, data, strict=True)
    ]
    try:
        joined = b"".join(pieces).decode()
    except UnicodeDecodeError:
        return
    if None not in data:
        spaces = str.maketrans("", "", " ▁")
        assert tokenizer.decode(ids).translate(spaces) == joined.translate(spaces), (ids, pieces)
    for token_id, piece in zip(ids, data, strict=True):
        if piece is not None and "WordPiece" not in tokenizer._step_types:
            shown = tokenizer.token_text(token_id)
            assert shown.encode() == piece or shown == "".join(f"<0x{b:02X}>" for b in piece)


def check(seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    backend = a_tokenizer(draw)
    tokenizer = Tokenizer(saved(backend, folder), "random")
    texts = [a_text(draw) for _ in range(6)]
    for text in texts:
        record = encoded(tokenizer, text)
        if record is None:
            continue
        assert list(record.ids) == backend.encode(text, add_special_tokens=False).ids
        check_spans(tokenizer, record)
        check_bytes(tokenizer, list(record.ids))
        for skip in (False, True):
            check_decoding(tokenizer, list(record.ids), skip)
        if type(backend.decoder) is decoders.ByteLevel and is_plain(backend):
            whole = not tokenizer._unknown.spans(text)
            decoded = tokenizer.decode(record.ids)
            assert not whole or decoded == text
    for _ in range(6):
        ids = [draw.randrange(tokenizer.size) for _ in range(draw.randint(0, 10))]
        for skip in (False, True):
            check_decoding(tokenizer, ids, skip)
        check_bytes(tokenizer, ids)


def is_plain(backend: tokenizers.Tokenizer) -> bool:
    """Return whether neither normalizer nor splitter changes or removes anything."""
    added = backend.get_added_tokens_decoder().values()
    return (
        backend.normalizer is None
        and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
        and not backend.pre_tokenizer.add_prefix_space
        and not any(t.special or t.lstrip or t.rstrip for t in added)
    )


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_tokenizers(group: int, tmp_path: Path) -> None:
    for seed in range(group, COUNT, GROUPS):
        try:
            check(seed, tmp_path / "model")
        except Exception:
            print(f"seed {seed}, unicodedata {unicodedata.unidata_version}")
            raise
