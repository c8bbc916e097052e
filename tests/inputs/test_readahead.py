"""Reading ahead: windows of what has arrived, and sources that are closed."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hftool.classification.classify import EncodedText, classify
from hftool.errors import HftoolError
from hftool.inputs.readahead import WINDOW_SIZE, read_ahead
from hftool.inputs.tables import TextRow


class Source:
    """Numbers as texts, without end; records whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.made = 0

    def texts(self) -> Iterator[str]:
        try:
            while True:
                self.made += 1
                yield str(self.made)
        finally:
            self.closed.set()


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether a condition is met within some seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert eventually(lambda: threading.active_count() <= before), threading.enumerate()


@pytest.mark.parametrize("most", [1, 2, 7, 1000])
def test_windows_are_the_items_in_order(most: int) -> None:
    items = [str(i) for i in range(500)]
    windows = list(read_ahead(items, most))
    assert [item for window in windows for item in window] == items
    assert all(0 < len(window) <= most for window in windows)


def test_nothing_gives_no_window() -> None:
    assert list(read_ahead([], 8)) == []


def test_a_window_is_full_by_the_size_of_its_items() -> None:
    third = "x" * (WINDOW_SIZE // 3)
    windows = list(read_ahead([third] * 10, 1000))
    assert [len(window) for window in windows] == [4, 4, 2]
    assert [len(w) for w in read_ahead([third] * 10, 1000, lambda item: 0)] == [10]


def test_items_that_arrive_one_by_one_are_answered_one_by_one() -> None:
    answered = threading.Semaphore(0)

    def slow() -> Iterator[str]:
        for item in ("a", "b", "c"):
            yield item
            assert answered.acquire(timeout=10), "no answer before the next item"

    windows = []
    for window in read_ahead(slow(), 1000):
        windows.append(window)
        answered.release()
    assert windows == [["a"], ["b"], ["c"]]


def test_the_next_item_is_prepared_meanwhile() -> None:
    source = Source()
    windows = read_ahead(source.texts(), 1)
    assert next(windows) == ["1"]
    assert eventually(lambda: source.made == 3)  # one in the window, one that waits to get in
    time.sleep(0.05)
    assert source.made == 3
    windows.close()  # type: ignore[attr-defined]


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[str]:
        yield from "abc"
        raise HftoolError("the source broke")

    items: list[str] = []
    with pytest.raises(HftoolError, match="the source broke"):
        for window in read_ahead(broken(), 2):
            items += window
    assert items == ["a", "b", "c"]


def test_what_cannot_be_read_at_all_is_an_error() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(read_ahead(5, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 1000])
def test_a_caller_that_stops_closes_the_source(most: int) -> None:
    source = Source()
    for window in read_ahead(source.texts(), most):
        assert window[0] == "1"
        break
    assert source.closed.wait(10)


def test_a_caller_that_fails_closes_the_source() -> None:
    source = Source()
    with pytest.raises(ZeroDivisionError):
        for window in read_ahead(source.texts(), 10):
            1 / (len(window) - len(window))
    assert source.closed.wait(10)


def test_closing_does_not_wait_for_a_source_that_waits() -> None:
    closed, arrives = threading.Event(), threading.Event()

    def waiting() -> Iterator[str]:
        try:
            yield "a"
            arrives.wait(30)
            yield "b"
        finally:
            closed.set()

    windows = read_ahead(waiting(), 10)
    assert next(windows) == ["a"]
    began = time.monotonic()
    windows.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert not closed.is_set()
    arrives.set()
    assert closed.wait(10)


class LengthScorer:
    """Scores texts without a model."""

    labels = ("SHORT", "LONG")
    is_multi_label = False
    pair_column = None
    window = 4
    truncated_texts = 0

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the length of each text."""
        return [EncodedText([len(text)]) for text in texts]

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Score texts of more than one character as LONG."""
        lengths = [text.sequences[0] for text in encoded]
        return [[2 - length, length - 1] for length in lengths]


def test_classifications_that_are_not_wanted_close_the_source() -> None:
    source = Source()
    rows = (TextRow(text, {}) for text in source.texts())
    classifications = classify(LengthScorer(), rows)  # type: ignore[arg-type]
    assert [next(classifications).label for _ in range(11)] == ["SHORT"] * 9 + ["LONG"] * 2
    classifications.close()  # type: ignore[attr-defined]
    del rows
    assert source.closed.wait(10)


@pytest.mark.usefixtures("smollm2_folder")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_program_that_fails_does_not_wait_for_stdin() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftool", "encode", "--lines", "-o", "/dev/full"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stderr is not None
    with process, process.stdin as stdin:
        stdin.write("good morning\n" * 3000)  # fits into the pipe
        stdin.flush()
        assert process.wait(60) == 1
        assert process.stderr.read() == "Error: cannot write /dev/full: No space left on device\n"
