"""Reasoning and answer are split the same, however the stream is cut into pieces."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hftool.chat.turns import Turn
from hftool.generation.records import Piece
from hftool.output.tables.generation import turns
from hftool.prompting.reasoning import ReasoningSplitter


def split(pieces: list[str], inside: bool) -> tuple[str, str]:
    """Return the reasoning and the answer."""
    thoughts = ReasoningSplitter(inside)
    parts = [part for piece in pieces for part in thoughts.parts(piece)]
    parts += thoughts.rest()
    return "".join(t for t, thought in parts if thought), "".join(t for t, th in parts if not th)


@pytest.mark.parametrize(
    ("text", "inside", "reasoning"),
    [
        ("", False, ""),
        ("Yes", False, ""),
        ("<think>hm</think>Yes", False, "<think>hm</think>"),
        ("\n <think>\nhm\n</think>\n\nYes", False, "\n <think>\nhm\n</think>\n\n"),
        ("<think>without end </thin", False, "<think>without end </thin"),
        ("<thin", False, ""),
        ("<thing>hm</think>", False, ""),
        ("Say <think>hm</think>", False, ""),
        ("<think>a</think>b<think>c</think>", False, "<think>a</think>"),
        ("hm</think>Yes", True, "hm</think>"),
        ("hm <think> </ </think>Yes", True, "hm <think> </ </think>"),
        ("hm", True, "hm"),
        ("<<think>", False, ""),
        ("hm <</think>Yes", True, "hm <</think>"),
    ],
)
def test_reasoning_at_the_beginning(text: str, inside: bool, reasoning: str) -> None:
    for size in (1, 2, 3, 5, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert split(pieces, inside) == (reasoning, text.removeprefix(reasoning))


PIECES = st.lists(
    st.one_of(st.sampled_from(["<", "<th", "ink>", "</", "think", ">", " ", "</think>"]), st.text())
)


@given(PIECES, st.booleans())
def test_pieces_change_nothing(pieces: list[str], inside: bool) -> None:
    reasoning, answer = split(pieces, inside)
    assert reasoning + answer == "".join(pieces)
    assert split(["".join(pieces)], inside) == (reasoning, answer)


def table(color: bool, *pieces: str, streamed: bool = True) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=color, color_system="standard" if color else None
    )
    answer = Turn("assistant", "").with_answer("".join(pieces), opened=False)
    events: list[Piece | Turn] = [Turn("user", "?"), answer]
    if streamed:
        splitter = ReasoningSplitter(opened=False)
        parts = [part for piece in pieces for part in splitter.parts(piece)]
        events[1:1] = [Piece(text, None, is_reasoning) for text, is_reasoning in parts]
    return "".join(turns([*events, *events], console))


def test_reasoning_is_dim_where_there_is_colour() -> None:
    pieces = ("<thi", "nk>hm\x1b[2J</th", "ink>", "Yes")
    dim = "\x1b[2m<think>hm\\x1b[2J\x1b[0m\x1b[2m</think>\x1b[0mYes\n"
    assert table(True, *pieces) == dim * 2
    assert table(False, *pieces) == "<think>hm\\x1b[2J</think>Yes\n" * 2
    whole = "\x1b[2m<think>\nhm\\x1b[2J\n</think>\n\n\x1b[0mYes\n"
    assert table(True, *pieces, streamed=False) == whole * 2
    assert table(False, *pieces, streamed=False) == "<think>\nhm\\x1b[2J\n</think>\n\nYes\n" * 2
