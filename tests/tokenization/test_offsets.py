"""The characters of a text that each token covers: computed from the tokens' bytes if these add up
to the text, by the letters if a normalizer changes it."""

import unicodedata
from bisect import bisect_left, bisect_right
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from hftool.tokenization.encode import encode_texts
from hftool.tokenization.records import Encoded
from hftool.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_tokenizer import (
    BYTE_TOKENS,
    Builder,
    byte_level,
    gemma_like,
    joined_bytes,
    llama2_like,
    saved,
    unigram,
    wordpiece,
)

TEXTS = (
    "",
    " ",
    "  two before, three after   ",
    "👩\u200d👩\u200d👧 x",
    "👍🏽a 🇩🇪🇫🇷",
    "e\u0301a cafe\u0301 \u0301",
    "é à Å ẞ İstanbul",
    "大家好 世界，大ab",
    "שלום עולם مرحبا بالعالم",
    "a\tb\r\n\r\n\tc\x00d",
    "ﬁnd ① ½ ＡＢＣ ﷺ",
    "\u00ad\u200bx \u3000 y",
    "가나 नमस्ते 𝔘𝔫𝔦",
    "the  hat",
)
NORMALIZERS = {
    "none": None,
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "lower": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "longer": normalizers.Replace("大", "大大大"),
    "shorter": normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
    "before": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
}


def roberta_like(folder: Path) -> Path:
    """Byte-level, with a space before each text, and a setting that excludes spaces from spans."""
    backend = tokenizers.Tokenizer.from_file(str(byte_level(folder) / "tokenizer.json"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.post_processor = processors.RobertaProcessing(("<|end|>", 0), ("<|end|>", 0))
    return saved(backend, folder)


def trimming(folder: Path) -> Path:
    """Like byte_level, with that setting in one of several steps."""
    backend = tokenizers.Tokenizer.from_file(str(byte_level(folder) / "tokenizer.json"))
    around = processors.TemplateProcessing(single="$A")
    backend.post_processor = processors.Sequence([processors.ByteLevel(True), around])
    return saved(backend, folder)


def unigram_of_bytes(folder: Path) -> Path:
    """Unigram with bytes for characters that are not in the vocabulary."""
    tokens = ["▁", *"abcdefghijklmnopqrstuvwxyz", "the", "▁the"]
    vocab = [("<unk>", 0.0), *((b, 0.0) for b in BYTE_TOKENS), *((t, -2.0) for t in tokens)]
    backend = tokenizers.Tokenizer(models.Unigram(vocab, 0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")]
    )
    backend.post_processor = processors.RobertaProcessing(("<unk>", 0), ("<unk>", 0))
    return saved(backend, folder, unk_token="<unk>")


BUILDERS = (byte_level, trimming, roberta_like, gemma_like, llama2_like, wordpiece, unigram)


def encoded(tokenizer: Tokenizer, text: str) -> Encoded:
    (record,) = encode_texts(tokenizer, [text], special=False)
    return record


def spans_by_bytes(tokenizer: Tokenizer, record: Encoded) -> list[tuple[int, int]]:
    """Return the characters that each token's bytes belong to; all bytes make up the text."""
    edges = [len(record.text[:i].encode()) for i in range(len(record.text) + 1)]
    found, place = [], 0
    for data in map(tokenizer.token_bytes, record.ids):
        start, place = place, place + len(data or b"")
        found.append((bisect_right(edges, start) - 1, bisect_left(edges, place)))
    assert place == edges[-1]
    return found


def letters(text: str) -> str:
    """Return what normalizers leave of a text."""
    bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept = (c for c in bare if not unicodedata.combining(c) and unicodedata.category(c)[0] != "C")
    return "".join(kept).translate({ord("▁"): None, ord(" "): None})


@pytest.fixture(scope="module", params=[byte_level, trimming, gemma_like, unigram_of_bytes])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Tokenizers whose tokens' bytes add up to the text."""
    return Tokenizer(request.param(tmp_path_factory.mktemp("exact")), "exact")


MIXED = st.text("ab eé大\t\r\n\0\u0301\u200d👩👧👍🏽🇩🇪שمر가") | st.text()


@settings(deadline=None, max_examples=150)
@given(text=MIXED.filter(lambda text: "▁" not in text))
@example("👩\u200d👩\u200d👧 大家 e\u0301\r\n\t\0 שלום  ")
def test_spans_are_the_characters_around_a_tokens_bytes(exact: Tokenizer, text: str) -> None:
    record = encoded(exact, text)
    assert list(record.offsets) == spans_by_bytes(exact, record)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("build", [*BUILDERS, unigram_of_bytes], ids=lambda build: build.__name__)
def test_spans_cover_their_tokens_where_the_text_is_normalized(
    build: Builder, normalizer: str, tmp_path: Path
) -> None:
    folder = build(tmp_path)
    if normalizer != "none":
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        backend.normalizer = NORMALIZERS[normalizer]
        backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder, "normalizing")
    for text in TEXTS:
        record = encoded(tokenizer, text)
        empty = [i for i, (a, b) in zip(record.ids, record.offsets, strict=True) if a == b]
        # What is put before the text, which stands for nothing in it.
        assert joined_bytes(tokenizer, empty).decode() in ("", " ", "▁", " ▁"), record
        before = (0, 0)
        for token_id, (start, end) in zip(record.ids, record.offsets, strict=True):
            assert 0 <= start <= end <= len(text), (text, record)
            assert before[0] <= start and before[1] <= end, (text, record)
            before = (start, end)
            if tokenizer.kind(token_id) == "normal":
                piece = (tokenizer.token_bytes(token_id) or b"").decode()
                covered = letters(text[start:end]) * (3 if normalizer == "longer" else 1)
                assert letters(piece) in covered, (text, record)


def test_minilm_gives_spans_of_the_text_before_it_is_lowercased(minilm_folder: Path) -> None:
    minilm = Tokenizer(minilm_folder, "minilm")
    text = "  Cafe\u0301 ÀB\t大家 \r\nÉ"
    record = encoded(minilm, text)
    pieces = [text[start:end] for start, end in record.offsets]
    assert record.tokens == ("cafe", "ab", "大", "家", "e")
    # Like the spaces, the accent that was removed belongs to no token.
    assert pieces == ["Cafe", "ÀB", "大", "家", "É"]


@pytest.mark.parametrize("build", [roberta_like, unigram_of_bytes])
def test_a_special_token_stands_nowhere_in_the_text(build: Builder, tmp_path: Path) -> None:
    tokenizer = Tokenizer(build(tmp_path), "framed")
    (record,) = encode_texts(tokenizer, ["a b"], special=True)
    assert len(record.offsets) == record.count == 5
    assert (record.offsets[0], record.offsets[-1]) == ((0, 0), (0, 0))
    assert "".join(record.text[start:end] for start, end in record.offsets) == "a b"


def chars(folder: Path, normalizer: normalizers.Normalizer) -> Tokenizer:
    """A tokenizer with a token for each character that the normalizer leaves."""
    backend = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("(?m)."), "isolated")
    return Tokenizer(saved(backend, folder, unk_token="<unk>"), "chars")


SEQUENCE = normalizers.Sequence
MERGING = {
    "accent": (normalizers.NFC(), "cafe\u0301 ok", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)]),
    "two accents": (normalizers.NFC(), "e\u0302\u0323x", [(0, 3), (3, 4)]),
    "an accent that stays": (normalizers.NFC(), "e\u0301\u0302x", [(0, 2), (2, 3), (3, 4)]),
    "Hangul": (normalizers.NFKC(), "\u1100\u1161\u11a8\u1100", [(0, 3), (3, 4)]),
    "kana": (normalizers.NFKC(), "か\u3099か", [(0, 2), (2, 3)]),
    "removed accents": (
        SEQUENCE([normalizers.NFD(), normalizers.StripAccents()]),
        "e\u0301é",
        [(0, 1), (2, 3)],
    ),
    "lowercase": (SEQUENCE([normalizers.NFC(), normalizers.Lowercase()]), "E\u0301", [(0, 2)]),
    "quotes": (normalizers.Replace("''", '"'), "a''b'", [(0, 1), (1, 3), (3, 4), (4, 5)]),
    "three as one": (normalizers.Replace("...", "…"), "...", [(0, 3)]),
    "longer": (normalizers.Replace("ab", "xyz"), "cab", [(0, 1), *[(1, 3)] * 3]),
    "spaces": (
        normalizers.Replace(tokenizers.Regex(" +"), " "),
        "a   b ",
        [(0, 1), (1, 4), (4, 5), (5, 6)],
    ),
    "removed": (normalizers.Replace("ab", ""), "cabd", [(0, 1), (3, 4)]),
    "ends": (SEQUENCE([normalizers.Strip(), normalizers.NFC()]), "  e\u0301 ", [(2, 4)]),
    "expanded": (normalizers.NFKC(), "½a", [*[(0, 1)] * 3, (1, 2)]),
}


@pytest.mark.parametrize("case", MERGING)
def test_characters_that_became_one_belong_to_its_token(case: str, tmp_path: Path) -> None:
    normalizer, text, expected = MERGING[case]
    offsets = encoded(chars(tmp_path, normalizer), text).offsets
    assert list(offsets)[: len(expected)] == expected


def test_bytes_of_one_character_have_all_of_its_characters(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(byte_level(tmp_path) / "tokenizer.json"))
    backend.normalizer = normalizers.NFC()
    record = encoded(Tokenizer(saved(backend, tmp_path), "nfc"), "xg\u0301y")
    assert record.pieces == ("x", "<0xC7>", "<0xB5>", "y")
    assert record.offsets == ((0, 1), (1, 3), (1, 3), (3, 4))


def test_a_space_put_before_a_text_stands_for_none_of_its_characters(tmp_path: Path) -> None:
    llama = Tokenizer(llama2_like(tmp_path / "llama"), "llama")
    for text, expected in (
        ("Xa", [(0, 0), (0, 1), (1, 2)]),  # X is a byte token
        (" the", [(0, 0), (0, 3), (3, 4)]),
        ("th", [(0, 2)]),
        ("", []),
    ):
        record = encoded(llama, text)
        assert list(record.offsets) == expected, record
    roberta = Tokenizer(roberta_like(tmp_path / "roberta"), "roberta")
    assert encoded(roberta, "ǵ").offsets == ((0, 0), (0, 1), (0, 1))
    assert encoded(roberta, " ǵ").offsets == ((0, 1), (1, 2), (1, 2))


def test_a_prefix_of_several_characters(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate("xyab")}, []))
    backend.normalizer = normalizers.Prepend("xy")
    tokenizer = Tokenizer(saved(backend, tmp_path), "prefixed")
    assert encoded(tokenizer, "xab").tokens == ("x", "y", "x", "a", "b")
    assert encoded(tokenizer, "xab").offsets == ((0, 0), (0, 0), (0, 1), (1, 2), (2, 3))
