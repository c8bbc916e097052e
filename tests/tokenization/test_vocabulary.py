"""Vocabularies: the texts are those of transformers, and the bytes add up to the text."""

import json
import re
import unicodedata
from pathlib import Path
from shutil import copytree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hftool.errors import UsageError
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.vocabulary import VocabularyEntry, parse_ranges, vocabulary
from tests.conftest import run
from tests.tokenization.test_tokenizer import (
    ABSENT,
    byte_level,
    gemma_like,
    listing_more,
    llama2_like,
    unigram,
    with_gap,
    wordpiece,
)


@pytest.fixture(scope="module")
def entries(tokenizer: Tokenizer) -> list[VocabularyEntry]:
    """All entries of SmolLM2's vocabulary."""
    return list(vocabulary(tokenizer))


def expected_text(decoded: str, entry: VocabularyEntry) -> str:
    """Return what transformers decodes, or the bytes if these are not text by themselves."""
    data = bytes.fromhex(entry.bytes or "")
    if "\ufffd" not in decoded or "\ufffd".encode() in data:
        return decoded
    return "".join(f"<0x{byte:02X}>" for byte in data)


def test_every_id_of_smollm2_once_and_ascending(entries: list[VocabularyEntry]) -> None:
    assert [entry.id for entry in entries] == list(range(49152))


def test_text_is_what_transformers_decodes(
    entries: list[VocabularyEntry], smollm2_folder: Path
) -> None:
    decoded = AutoTokenizer.from_pretrained(smollm2_folder).batch_decode([[e.id] for e in entries])
    for entry, text in zip(entries, decoded, strict=True):
        assert entry.text == expected_text(text, entry)


def test_token_is_the_piece_as_stored(entries: list[VocabularyEntry], smollm2_folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(smollm2_folder)
    stored = theirs.convert_ids_to_tokens([entry.id for entry in entries])
    assert [entry.token for entry in entries] == stored


def test_kinds_of_smollm2(entries: list[VocabularyEntry], smollm2_folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(smollm2_folder)
    special = {i for i, token in theirs.added_tokens_decoder.items() if token.special}
    assert {entry.id for entry in entries if entry.kind == "special"} == special
    for entry in entries:
        assert (entry.bytes is None) == (entry.kind == "special")
        half = "\ufffd" in theirs.decode([entry.id]) and "\ufffd" not in entry.text
        assert (entry.kind == "byte") == half


@settings(deadline=None, max_examples=100)
@given(st.text().filter(lambda text: "<|" not in text and not ABSENT & set(text.encode())))
def test_bytes_of_smollm2_add_up_to_the_text(
    entries: list[VocabularyEntry], tokenizer: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text, special=False).ids
    assert bytes.fromhex("".join(entries[i].bytes or "" for i in ids)) == text.encode()


@pytest.mark.parametrize("builder", [byte_level, gemma_like, listing_more, with_gap])
def test_bytes_add_up_to_the_text(builder: type, tmp_path: Path) -> None:
    small = Tokenizer(builder(tmp_path), "small")
    text = "the cat 大好 é 🇩🇪\r\n\t don't\x00"
    entries = list(vocabulary(small))
    ids = small.encode(text, special=False).ids
    assert bytes.fromhex("".join(entries[i].bytes or "" for i in ids)) == text.encode()


def test_bytes_of_a_prepending_tokenizer_begin_with_its_space(tmp_path: Path) -> None:
    small = Tokenizer(llama2_like(tmp_path), "small")
    entries = list(vocabulary(small))
    ids = small.encode("that é", special=False).ids
    assert bytes.fromhex("".join(entries[i].bytes or "" for i in ids)) == " that é".encode()


@pytest.mark.parametrize("builder", [unigram, wordpiece, gemma_like, llama2_like, listing_more])
def test_small_vocabularies_have_the_texts_of_transformers(builder: type, tmp_path: Path) -> None:
    folder = builder(tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    entries = list(vocabulary(Tokenizer(folder, "small")))
    assert [entry.id for entry in entries] == sorted(theirs.get_vocab().values())
    for entry in entries:
        text = str(theirs.decode([entry.id]))
        assert entry.text == expected_text(text, entry)
        assert entry.token == theirs.convert_ids_to_tokens(entry.id)


def test_wordpieces_stand_for_their_bytes_without_the_mark(minilm_folder: Path) -> None:
    minilm = Tokenizer(minilm_folder, "minilm")
    by_token = {entry.token: entry for entry in vocabulary(minilm)}
    assert bytes.fromhex(by_token["##ing"].bytes or "") == b"ing"
    assert bytes.fromhex(by_token["love"].bytes or "") == b"love"
    assert by_token["[CLS]"].kind == "special"
    assert len(by_token) == 30522


def test_unigram_pieces_stand_for_their_space(tmp_path: Path) -> None:
    entries = {entry.token: entry for entry in vocabulary(Tokenizer(unigram(tmp_path), "small"))}
    words = [token for token in entries if token.startswith("▁") and len(token) > 1]
    assert words
    for token in words:
        expected = token.replace("▁", " ").encode().hex()
        assert entries[token].bytes == expected


def test_missing_ids_keep_their_place(tmp_path: Path) -> None:
    entries = list(vocabulary(Tokenizer(with_gap(tmp_path), "gap")))
    assert [entry.id for entry in entries] == list(range(262))
    for entry in entries[256:260]:
        assert entry == VocabularyEntry(entry.id, "", "", None, "unused")
    assert [entry.text for entry in entries[260:]] == ["th", "the"]


# The command


def unescaped(text: str) -> str:
    """Undo the escapes of the text format."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


def test_dump_has_a_line_for_every_id(entries: list[VocabularyEntry]) -> None:
    result = run("vocab-dump", "smollm2")
    assert result.exit_code == 0
    lines = result.stdout.removesuffix("\n").split("\n")
    assert len(lines) == 49152
    for entry, line in zip(entries, lines, strict=True):
        assert line.startswith(f"{entry.id}:")
        assert unescaped(line.removeprefix(f"{entry.id}:")) == entry.text
    assert lines[260] == "260: the"


def test_dump_of_newlines_and_controls_is_one_line_each(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    lines = run("vocab-dump", str(folder)).stdout.removesuffix("\n").split("\n")
    theirs = AutoTokenizer.from_pretrained(folder)
    shown = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\", "\x1b": r"\x1b", "\x7f": r"\u007f"}
    for character, expected in shown.items():
        (token_id,) = theirs.encode(character)
        assert lines[token_id] == f"{token_id}:{expected}"
    assert len(lines) == 500


def test_dump_of_a_missing_id_is_an_empty_text(tmp_path: Path) -> None:
    lines = run("vocab-dump", str(with_gap(tmp_path))).stdout.split("\n")
    assert lines[256:] == ["256:", "257:", "258:", "259:", "260:th", "261:the", ""]


# Selections, statistics, differences


def ids_of(*arguments: str) -> list[int]:
    """Return the ids in a dump of SmolLM2's vocabulary."""
    done = run("vocab-dump", "smollm2", *arguments, "--format", "jsonl")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


def test_selections_are_those_of_the_whole_list(entries: list[VocabularyEntry]) -> None:
    assert ids_of("--grep", "^ the") == [e.id for e in entries if e.text.startswith(" the")]
    assert ids_of("--ids", "0-5, 100,102-102") == [0, 1, 2, 3, 4, 5, 100, 102]
    assert ids_of("--kind", "special") == list(range(17))
    short = [e.id for e in entries if 9 <= len(e.text) <= 10 and "ing" in e.text]
    assert ids_of("--min-length", "9", "--max-length", "10", "--grep", "ing") == short


def test_script_han_is_what_unicode_names_cjk_ideographs(entries: list[VocabularyEntry]) -> None:
    def ideographs(text: str) -> bool:
        letters = [c for c in text if c.isalpha()]
        return bool(letters) and all("CJK" in unicodedata.name(c) for c in letters)

    expected = [e.id for e in entries if e.kind == "normal" and ideographs(e.text)]
    assert len(expected) > 50
    assert ids_of("--script", "han") == ids_of("--script", "Hani") == expected
    assert ids_of("--script", "Chinese") == expected


def test_sorting(entries: list[VocabularyEntry]) -> None:
    by_length = ids_of("--sort", "length", "--kind", "normal")
    texts = {entry.id: entry.text for entry in entries}
    lengths = [len(texts[i]) for i in by_length]
    assert lengths == sorted(lengths, reverse=True)
    by_text = [texts[i] for i in ids_of("--sort", "text", "--grep", "^the")]
    assert by_text == sorted(by_text) and len(by_text) > 3


def test_statistics_add_up(entries: list[VocabularyEntry], smollm2_folder: Path) -> None:
    (stats,) = json.loads(run("vocab-dump", "--stats", "--json").stdout)
    theirs = AutoTokenizer.from_pretrained(smollm2_folder)
    assert stats["vocab_size"] == theirs.vocab_size
    assert stats["size"] == len(theirs) == sum(stats["kinds"].values())
    assert stats["embedding_rows"] == 49152
    assert stats["special_tokens"] == theirs.special_tokens_map
    texts = [e.text for e in entries if e.kind == "normal"]
    assert sum(stats["scripts"].values()) == len(texts)
    assert [len(t) for t in stats["longest"]] == sorted(map(len, texts), reverse=True)[:10]


def test_embedding_rows_past_the_last_token_are_unused(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    size = len(AutoTokenizer.from_pretrained(folder))
    (folder / "config.json").write_text(json.dumps({"vocab_size": size + 3}))
    unused = run("vocab-dump", str(folder), "--kind", "unused").stdout.splitlines()
    assert unused == [f"{size}:", f"{size + 1}:", f"{size + 2}:"]
    assert len(run("vocab-dump", str(folder)).stdout.splitlines()) == size


def test_a_tokenizer_does_not_differ_from_itself(tmp_path: Path) -> None:
    folder = str(byte_level(tmp_path, chat_template="{{ messages }}"))
    done = run("vocab-dump", folder, "--diff", folder)
    assert (done.exit_code, done.stdout) == (0, "")


def test_difference_has_every_change_and_nothing_else(tmp_path: Path) -> None:
    folders = {
        side: byte_level(tmp_path / side, chat_template=f"same\n{{{{ {side} }}}}\nend")
        for side in ("a", "b")
    }
    changed = json.loads((folders["b"] / "tokenizer.json").read_text("utf-8"))
    changed["normalizer"] = {"type": "NFC"}
    changed["pre_tokenizer"]["add_prefix_space"] = True
    changed["added_tokens"][0]["lstrip"] = True
    changed["model"]["fuse_unk"] = True
    vocab, merges = changed["model"]["vocab"], changed["model"]["merges"]
    vocab["zz"] = 600
    first, last = sorted(vocab, key=vocab.__getitem__)[1:3]
    vocab[first], vocab[last] = vocab[last], vocab[first]
    merges.insert(9, merges.pop(2))
    merges.append(["z", "z"])
    (folders["b"] / "tokenizer.json").write_text(json.dumps(changed), "utf-8")
    config = json.loads((folders["b"] / "tokenizer_config.json").read_text())
    config["pad_token"] = "<|end|>"
    (folders["b"] / "tokenizer_config.json").write_text(json.dumps(config))

    done = run("vocab-dump", str(folders["a"]), "--diff", str(folders["b"]))
    names = {str(folder): side for side, folder in folders.items()}
    found = [line.split("\t") for line in done.stdout.splitlines()]
    split = "add_prefix_space={}, trim_offsets=true, use_regex=true"
    moved = " ".join(merges[9])
    assert [(part, names[side], place, text) for part, side, place, text in found] == [
        ("normalizer", "b", "NFC", ""),
        ("splitter", "a", "ByteLevel", split.format("false")),
        ("splitter", "b", "ByteLevel", split.format("true")),
        ("template", "a", "default:2", "{{ a }}"),
        ("template", "b", "default:2", "{{ b }}"),
        ("model", "a", "fuse_unk", "false"),
        ("model", "b", "fuse_unk", "true"),
        ("added_token", "a", "<|end|>", "special"),
        ("added_token", "b", "<|end|>", "lstrip special"),
        ("special_token", "b", "pad_token", "<|end|>"),
        ("token", "b", "600", "zz"),
        *(("id", side, str(i), token) for i, token, side in [
            (1, first, "a"), (2, first, "b"), (2, last, "a"), (1, last, "b")
        ]),
        ("merge", "b", str(len(merges) - 1), "z z"),
        ("merge", "a", "2", moved),
        ("merge", "b", "9", moved),
    ]  # fmt: skip
    selected = run("vocab-dump", str(folders["a"]), "--diff", str(folders["b"]), "--grep", "zz")
    assert [line.split("\t")[0] for line in selected.stdout.splitlines()] == ["token"]


def test_difference_of_unigram_scores(tmp_path: Path) -> None:
    ours = unigram(tmp_path / "ours")
    theirs = copytree(ours, tmp_path / "theirs")
    changed = json.loads((theirs / "tokenizer.json").read_text("utf-8"))
    token, score = changed["model"]["vocab"][7]
    changed["model"]["vocab"][7][1] = score - 1
    (theirs / "tokenizer.json").write_text(json.dumps(changed), "utf-8")
    done = run("vocab-dump", str(ours), "--diff", str(theirs), "--format", "jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["part"], r["side"], r["id"], r["token"], r["score"]) for r in records] == [
        ("score", str(ours), 7, token, score),
        ("score", str(theirs), 7, token, score - 1),
    ]


def test_raw_texts_are_not_escaped(tmp_path: Path) -> None:
    arguments = ("vocab-dump", "smollm2", "--grep", "^\n\\Z")
    assert run(*arguments).stdout == "198:\\n\n"
    assert run(*arguments, "--raw").stdout == "198:\n\n"


@pytest.mark.parametrize(
    "arguments",
    [("--grep", "("), ("--ids", "5-1"), ("--ids", "x"), ("--ids", ""), ("--script", "Klingon")],
    ids=" ".join,
)
def test_a_broken_selection_is_a_usage_error(arguments: tuple[str, str]) -> None:
    done = run("vocab-dump", "smollm2", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {arguments[0]}: ")


def test_ids_past_the_last_token_are_said() -> None:
    done = run("vocab-dump", "smollm2", "--ids", "49152-50000,99999")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "Warning: the ids of smollm2 go from 0 to 49151\n"
    assert run("vocab-dump", "smollm2", "--ids", "49151-50000").stderr == ""


@given(st.text(alphabet="0123456789-, ٣x", max_size=12))
def test_ranges_are_parsed_or_refused(text: str) -> None:
    try:
        ranges = parse_ranges(text)
    except UsageError:
        return
    assert all(len(r) > 0 for r in ranges)
    assert re.fullmatch(r"[\d\s,-]+", text, re.ASCII)
