"""`encode` and `decode`, against transformers."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hftool.errors import HftoolError, UsageError
from hftool.models.local_files import load_tokenizer
from hftool.options.encode import EncodeOptions
from hftool.options.model import SourceOptions
from hftool.tokenization.count import count_tokens
from hftool.tokenization.decode import decode_ids
from hftool.tokenization.encode import encode_records, encode_texts
from hftool.tokenization.given_ids import parse_ids
from hftool.tokenization.records import ComparedTotal, Counted
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.tokenization.test_tokenizer import PAGE, with_gap, wordpiece


@pytest.fixture(scope="module")
def theirs(smollm2_folder: Path) -> Any:
    """Transformers' tokenizer for SmolLM2."""
    return AutoTokenizer.from_pretrained(smollm2_folder)


# Text to ids


def test_records_equal_transformers(tokenizer: Tokenizer, theirs: Any) -> None:
    for encoded in encode_texts(tokenizer, PAGE, special=False):
        expected = theirs(encoded.text, return_offsets_mapping=True, add_special_tokens=False)
        assert list(encoded.ids) == expected["input_ids"]
        assert list(encoded.offsets) == expected["offset_mapping"]
        assert list(encoded.tokens) == theirs.convert_ids_to_tokens(expected["input_ids"])
        assert encoded.count == len(expected["input_ids"]) == len(encoded.pieces)


def test_pieces_are_the_readable_tokens(tokenizer: Tokenizer) -> None:
    (encoded,) = encode_texts(tokenizer, ["good morning 佽"], special=False)
    assert encoded.pieces[:2] == ("good", " morning")
    assert "".join(encoded.pieces[2:]) == " <0xE4><0xBD><0xBD>"


def test_special_tokens_are_added_on_request(minilm_folder: Path) -> None:
    minilm = Tokenizer(minilm_folder, "minilm")
    for special, expected in ((True, ("[CLS]", "hello", "[SEP]")), (False, ("hello",))):
        (encoded,) = encode_texts(minilm, ["hello"], special=special)
        assert encoded.tokens == expected


def test_encode_prints_ids(theirs: Any) -> None:
    assert theirs.encode("good morning") == [12018, 5738]
    assert run("encode", "good morning").stdout == "12018 5738\n"


def test_encode_of_an_empty_text_is_an_empty_line() -> None:
    assert run("encode", "").stdout == "\n"
    assert run("encode", "", "--count").stdout == "0\n"
    assert json.loads(run("encode", "", "--json").stdout) == [
        {"text": "", "ids": [], "tokens": [], "pieces": [], "offsets": [], "count": 0}
    ]


def test_encode_lines(theirs: Any) -> None:
    result = run("encode", "--lines", stdin="good morning\n\n大家好\n")
    expected = [theirs.encode(text) for text in ("good morning", "", "大家好")]
    assert result.stdout == "".join(" ".join(map(str, ids)) + "\n" for ids in expected)


def test_count(theirs: Any) -> None:
    result = run("encode", "--count", "--lines", stdin="good morning\n大家好\n")
    assert result.stdout == f"2\n{len(theirs.encode('大家好'))}\n"


MANY_LINES = [
    f"line {i}: naïve 大家好 \U0001f469\u200d\U0001f467 x\t{i * 7919}" for i in range(6000)
]


def test_gigatoken_counts_as_the_tokenizers_library(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("gigatoken")
    tokenizer = byte_level_tokenizer(tmp_path)
    expected = [len(e.ids) for e in tokenizer.backend.encode_batch(MANY_LINES)]
    with caplog.at_level("DEBUG", logger="hftool"):
        for check in (False, True):
            records = count_tokens(tokenizer, MANY_LINES, special=False, check=check)
            assert [r.count for r in records if isinstance(r, Counted)] == expected
    assert "counts the tokens" in caplog.text


def test_another_count_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    awkward = pytest.importorskip("awkward")
    gigatoken = pytest.importorskip("gigatoken")
    tokenizer = byte_level_tokenizer(tmp_path)
    expected = [len(e.ids) for e in tokenizer.backend.encode_batch(MANY_LINES)]
    wrong = SimpleNamespace(encode_batch=lambda texts: awkward.Array([[1, 2]] * len(texts)))
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda content: wrong)
    records = count_tokens(tokenizer, MANY_LINES, special=False)
    assert [r.count for r in records if isinstance(r, Counted)] == expected
    assert caplog.text.count("gigatoken gives other tokens") == 1


def byte_level_tokenizer(folder: Path) -> Any:
    """Return a tokenizer with all bytes and some merges, as Llama 3's and GPT-2's."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(MANY_LINES[:200], trainer)
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder), SourceOptions())


@pytest.mark.parametrize("options", [EncodeOptions(), EncodeOptions(count=True)])
def test_records_can_be_passed_on_before_more_texts_arrive(
    tokenizer: Tokenizer, options: EncodeOptions
) -> None:
    flushed = threading.Semaphore(0)
    received: list[str] = []

    def slow() -> Iterator[list[str]]:
        for text in ("good", "morning"):
            yield [text]
            assert flushed.acquire(timeout=10), "waits for more texts without a flush"
            assert received[-1] == text

    for record in encode_records([tokenizer], slow(), options, flushed.release):
        assert not isinstance(record, ComparedTotal)
        received.append(record.text)
    assert received == ["good", "morning"]


@pytest.mark.parametrize("arguments", [(), ("-v",), ("-q",)])
def test_all_cores_tokenize(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)  # unset, the library uses one
    assert run("encode", "--count", "good", *arguments).stdout == "1\n"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_max_tokens_truncates_and_logs_it(theirs: Any) -> None:
    ids = theirs.encode("one two three four")
    result = run("encode", "--max-tokens", "2", "--json", "one two three four")
    (record,) = json.loads(result.stdout)
    assert record["ids"] == ids[:2]
    assert record["count"] == len(record["offsets"]) == len(record["pieces"]) == 2
    assert result.stderr == f"Warning: truncated a text of {len(ids)} tokens to 2\n"


def test_max_tokens_counts_the_truncated_lines(theirs: Any) -> None:
    lines = ["one two three four", "one", "", *["five six seven"] * 1500]
    result = run("encode", "--lines", "--max-tokens", "2", stdin="\n".join(lines))
    expected = [theirs.encode(line)[:2] for line in lines]
    assert [[*map(int, line.split())] for line in result.stdout.splitlines()] == expected
    longest = len(theirs.encode(lines[0]))
    warning = f"Warning: truncated 1,501 of 1,503 texts to 2 tokens; the longest had {longest}\n"
    assert result.stderr == warning


def test_max_tokens_logs_nothing_if_nothing_is_truncated_or_with_quiet(theirs: Any) -> None:
    count = str(len(theirs.encode("one two three")))
    assert run("encode", "--max-tokens", count, "one two three").stderr == ""
    assert run("encode", "--max-tokens", "1", "one two three", "-q").stderr == ""


# Ids to text


@pytest.mark.parametrize(
    "text",
    ["1 22 333", "1,22,333", "1\n22\n333\n", "[1, 22, 333]", " [ 1 22,\n333 ] ", "1\t22, 333"],
)
def test_ids_are_parsed_from(text: str) -> None:
    assert parse_ids(text) == (1, 22, 333)


@pytest.mark.parametrize("text", ["", "  \n", "[]", "[ ]"])
def test_no_ids_are_parsed_from(text: str) -> None:
    assert parse_ids(text) == ()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1)), st.sampled_from([" ", ",", "\n", ", ", " , "]))
def test_any_ids_are_parsed_from_text_and_json(ids: list[int], separator: str) -> None:
    assert parse_ids(separator.join(map(str, ids))) == tuple(ids) == parse_ids(json.dumps(ids))


@pytest.mark.parametrize(
    "word", ["x", "-1", "1.5", "1e3", "0x10", "４", "²", "4294967296", "9" * 5000, "1[2"]
)
def test_is_not_an_id(word: str) -> None:
    with pytest.raises(UsageError, match="is not a token id") as caught:
        parse_ids(f"1 {word} 2")
    assert len(caught.value.message) < 100


def test_decode_equals_transformers(tokenizer: Tokenizer, theirs: Any) -> None:
    for text in PAGE:
        ids = theirs.encode(text)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip)
            assert decode_ids(tokenizer, ids, skip_special=skip).text == expected


def test_decode_names_an_id_out_of_range(tokenizer: Tokenizer) -> None:
    with pytest.raises(HftoolError, match="id 49152 is not in the vocabulary") as caught:
        decode_ids(tokenizer, [1, 49152], skip_special=False)
    assert caught.value.hint == "its ids go from 0 to 49151"


def test_decode_names_an_id_that_is_missing_inside(tmp_path: Path) -> None:
    with pytest.raises(HftoolError, match="id 257 is not"):
        decode_ids(Tokenizer(with_gap(tmp_path), "gap"), [257], skip_special=False)


def test_decode_out_of_range_is_status_1() -> None:
    result = run("decode", "260", "60000")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: id 60000 is not in the vocabulary of smollm2\nHint: ")


def test_decode_of_a_word_is_status_2() -> None:
    result = run("decode", "260 the")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: 'the' is not a token id\n")


@pytest.mark.parametrize("arguments", [["12018", "5738"], ["12018,5738"], ["[12018, 5738]"]])
def test_decode_of_arguments(arguments: list[str]) -> None:
    assert run("decode", *arguments).stdout == "good morning\n"


def test_decode_by_lines() -> None:
    result = run("decode", "--lines", stdin="12018 5738\n\n[5738]\n")
    assert result.stdout == "good morning\n\n morning\n"


def test_decode_skips_special_tokens() -> None:
    assert run("decode", "12018 2 5738").stdout == "good<|im_end|> morning\n"
    assert run("decode", "12018 2 5738", "--skip-special").stdout == "good morning\n"


@pytest.mark.parametrize("text", ["", "大家好", "a\r\n\n", "👩\u200d👧 \x00<|im_end|>"])
def test_decode_takes_what_encode_gives(text: str) -> None:
    decoded = run("decode", stdin=run("encode", text).stdout)
    assert decoded.stdout_bytes.decode() == text + "\n"


# Chats, comparisons, round trips


MESSAGES = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Which day?"},
]


def test_encode_chat_equals_apply_chat_template(theirs: Any, tmp_path: Path) -> None:
    one = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    expected = theirs.apply_chat_template(one, add_generation_prompt=True)["input_ids"]
    for special in ("--special", "--no-special"):
        done = run("encode", "hi", "--chat", "-s", "Be brief.", special)
        assert list(map(int, done.stdout.split())) == expected
    file = tmp_path / "chat.json"
    for content in (MESSAGES, {"messages": MESSAGES}):
        file.write_text(json.dumps(content), "utf-8")
        expected = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
        assert list(map(int, run("encode", "--messages", str(file)).stdout.split())) == expected


def test_show_template_is_the_rendered_text(theirs: Any) -> None:
    done = run("encode", "hi", "--show-template")
    messages = [{"role": "user", "content": "hi"}]
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert done.stdout == rendered + "\n"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '["hi"]', '[{"role": "user"}]', '[{"role": 1, "content": ""}]'],
)
def test_broken_messages_are_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "chat.json").write_text(content)
    done = run("encode", "--messages", str(tmp_path / "chat.json"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")


def test_compare_has_a_record_per_tokenizer(theirs: Any, minilm_folder: Path) -> None:
    text = "hello 大家好"
    records = json.loads(run("encode", text, "--compare", "minilm-sst2", "--json").stdout)
    other = AutoTokenizer.from_pretrained(minilm_folder)
    for record, tokenizer in zip(records, (theirs, other), strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert record["ids"] == ids
        assert record["count"] == len(ids)
        assert record["bytes_per_token"] == 15 / len(ids)
    assert [record["model"] for record in records] == ["smollm2", "minilm-sst2"]
    assert "大" in run("encode", text, "--compare", "minilm-sst2", "--format", "table").stdout


def test_roundtrip_finds_the_first_difference() -> None:
    assert run("encode", "Héllo\n", "--roundtrip").stdout == "same\n"
    done = run("encode", "ok Fine", "--roundtrip", "-m", "minilm-sst2", "--json")
    (record,) = json.loads(done.stdout)
    assert record == {"text": "ok Fine", "decoded": "ok fine", "same": False, "differs_at": 3}


# Comparisons of several texts


def test_compare_ends_with_the_totals(tmp_path: Path) -> None:
    text = "good 大家\nGood\n\n"
    (tmp_path / "texts.txt").write_text(text)
    arguments = ("--compare", "minilm-sst2", "--lines", "-f", str(tmp_path / "texts.txt"))
    for extra in ((), ("--count",)):
        result = run("encode", *arguments, *extra, "--format", "jsonl")
        records = [json.loads(line) for line in result.stdout.splitlines()]
        each, totals = records[:-2], records[-2:]
        assert len(each) == 6 and all(("ids" in r) == (not extra) for r in each)
        for name, total in zip(("smollm2", "minilm-sst2"), totals, strict=True):
            own = [r for r in each if r["model"] == name]
            count = int(run("encode", "--count", "-m", name, text.split("\n")[0]).stdout)
            assert own[0]["count"] == count
            assert total["kind"] == "total" and total["model"] == name and total["texts"] == 3
            assert total["count"] == sum(r["count"] for r in own)
            size = sum(len(line.encode()) for line in text.split("\n"))
            assert total["bytes_per_token"] == size / total["count"]


def test_compare_counts_unknown_tokens(tmp_path: Path) -> None:
    folder = str(wordpiece(tmp_path))
    result = run("encode", "-m", folder, "--compare", "smollm2", "--count", "the ☃ hat ☃☃")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == [folder, "smollm2", "total", "total"]
    assert [line[-1] for line in lines] == ["2", "0", "2", "0"]


def test_explain_as_text() -> None:
    result = run("encode", "--explain", "tokenizers x", "-m", "minilm-sst2")
    assert result.stdout == (
        "normalized\ttokenizers x\npart\ttokenizers\nmatch\ttoken\tizers\nmatch\t##izer\ts\n"
        "match\t##s\t\ntokens\ttoken\t##izer\t##s\npart\tx\nmatch\tx\t\ntokens\tx\n"
    )


def test_explain_as_a_page_that_plays(tmp_path: Path) -> None:
    page = tmp_path / "x.html"
    run("encode", "--explain", "good </script>", "--save", str(page))
    content = page.read_text()
    assert content.count("</script>") == 1 and "src=" not in content and "http" not in content
    frames = json.loads(content.split("const frames = ")[1].split(";\nlet at")[0])
    assert frames[0] == {"title": "The text", "parts": [[["good </script>", False]]]}
    assert ["ood", True] in frames[5]["parts"][0]
    assert [part[0][0] for part in frames[-1]["parts"]][:1] == ["good"]
