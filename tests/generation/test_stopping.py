"""Texts end at stop strings, no part of which is ever shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftool.generation.generate import Continuation, generate
from hftool.generation.records import Generation, Piece, Request
from hftool.generation.sampling import SamplingSettings
from hftool.models.language_model import LanguageModel
from tests.conftest import run

GREEDY = SamplingSettings(greedy=True, seed=None)


def request(model: LanguageModel, prompt: str, *stop: str, tokens: int = 30) -> Request:
    ids = tuple(model.tokenizer.encode(prompt, special=True).ids)
    return Request(prompt, ids, GREEDY, tokens, stop)


def generated(model: LanguageModel, asked: Request) -> tuple[list[str], Generation]:
    *pieces, record = generate(model, asked)
    assert isinstance(record, Generation)
    assert all(isinstance(piece, Piece) for piece in pieces)
    return [piece.text for piece in pieces if isinstance(piece, Piece)], record


@pytest.fixture(scope="module")
def full(smollm2: LanguageModel) -> str:
    """The continuation of "Once upon a time" without stop strings."""
    return generated(smollm2, request(smollm2, "Once upon a time"))[1].text


@pytest.mark.parametrize("length", [1, 2, 5, 9, 20])
@pytest.mark.parametrize("start", [0, 1, 4, 11, 30])
def test_text_ends_before_a_stop_string_wherever_it_lies(
    smollm2: LanguageModel, full: str, start: int, length: int
) -> None:
    stop = full[start : start + length]
    pieces, record = generated(smollm2, request(smollm2, "Once upon a time", stop))
    assert record.text == full[: full.index(stop)]
    assert "".join(pieces) == record.text
    assert (record.finish_reason, record.stop) == ("stop", stop)
    # No token too many: without the last one, the text has no stop string.
    count = record.completion_tokens
    _, shorter = generated(smollm2, request(smollm2, "Once upon a time", tokens=count - 1))
    assert stop not in shorter.text


def test_first_of_several_stop_strings_counts(smollm2: LanguageModel, full: str) -> None:
    early, late = full[6:9], full[20:24]
    _, record = generated(smollm2, request(smollm2, "Once upon a time", late, early, "zzz"))
    assert (record.text, record.stop) == (full[:6], early)


def test_what_only_begins_like_a_stop_string_is_shown(smollm2: LanguageModel, full: str) -> None:
    stops = (full[5:12] + "\0", full[-3:] + "\0")
    pieces, record = generated(smollm2, request(smollm2, "Once upon a time", *stops))
    assert (record.text, record.stop, record.finish_reason) == (full, None, "length")
    assert "".join(pieces) == full


@given(
    text=st.text("ab你", max_size=30),
    stops=st.lists(st.text("ab你", min_size=1, max_size=5), max_size=3),
)
def test_pieces_are_a_prefix_of_what_comes_before_the_first_stop(
    smollm2: LanguageModel, text: str, stops: list[str]
) -> None:
    """Compare with a plain search for the shortest prefix that contains a stop string."""
    lengths = range(1, len(text) + 1)
    ended = next((n for n in lengths if any(s in text[:n] for s in stops)), None)
    before = text if ended is None else text[:ended]
    expected = min((before.index(s) for s in stops if s in before), default=len(before))
    continuation = Continuation(smollm2, Request("", (0,), GREEDY, 99, tuple(stops)))
    shown, encode = "", smollm2.tokenizer.encode
    for token_id in (i for c in text for i in encode(c, special=False).ids):
        shown += "".join(part for part, _ in continuation.add(token_id))
        assert text[:expected].startswith(shown)
        if continuation.finish_reason:
            break
    shown += "".join(part for part, _ in continuation.end())
    assert shown == text[:expected] == continuation.record().text
    assert (continuation.stop is None) == (ended is None)


def test_stop_on_the_command_line() -> None:
    arguments = ("generate", "Once upon a time", "--greedy", "--dtype", "float32", "-n", "30")
    whole = run(*arguments).stdout.removesuffix("\n")
    stop = whole[10:14]
    result = run(*arguments, "--stop", stop, "--stop", "never said")
    assert result.stdout == whole[: whole.index(stop)] + "\n"
    [record] = json.loads(run(*arguments, "--stop", stop, "--json").stdout)
    assert (record["stop"], record["finish_reason"]) == (stop, "stop")


def test_empty_stop_is_wrong_usage() -> None:
    result = run("generate", "a", "--stop", "")
    assert (result.exit_code, result.stderr) == (2, "Error: a stop text is empty\n")
