"""Texts that have no tokens: a record in the place of each, and their number."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from hftool.errors import HftoolError
from hftool.tokenization.records import EncodeRecord, FailedText
from hftool.tokenization.unknown import NoTokenError

log = logging.getLogger("hftool")

Record = TypeVar("Record")


def or_failures(
    encode: Callable[[Sequence[str]], Iterable[Record]], texts: Sequence[str]
) -> Iterator[Record | FailedText]:
    """Yield the records of texts; if one of them can't be encoded, its failure in its place.

    Args:
        encode: encodes all the texts, or fails before its first record.
    """
    try:
        yield from encode(texts)
    except NoTokenError as error:
        if len(texts) == 1:
            yield FailedText(texts[0], error.message)
            return
        for text in texts:
            yield from or_failures(encode, [text])


class FailedTexts:
    """Counts the texts that were not encoded.

    Args:
        go_on: log each of them, with the number of its line, and go on; otherwise fail.
        per_text: the number of records for each text.
    """

    def __init__(self, *, go_on: bool, per_text: int = 1) -> None:
        self._go_on = go_on
        self._per_text = per_text
        self._failed = 0

    def count(self, records: Iterable[EncodeRecord]) -> Iterator[EncodeRecord]:
        """Pass the records on, and count those that failed.

        Raises:
            HftoolError: one failed, without `go_on`.
        """
        for index, record in enumerate(records):
            if isinstance(record, FailedText):
                if not self._go_on:
                    raise HftoolError(record.error, NoTokenError.HINT)
                log.warning("line %d: %s", index // self._per_text + 1, record.error)
                self._failed += 1
            yield record

    def require_none(self) -> None:
        """Raise where texts have failed.

        Raises:
            HftoolError: with their number.
        """
        if self._failed:
            texts = f"{self._failed} text" + "s" * (self._failed > 1)
            raise HftoolError(f"{texts} failed", NoTokenError.HINT)
