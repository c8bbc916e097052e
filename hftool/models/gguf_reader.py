"""The GGUF library's reader, which takes a file's numbers as they are, within bounds."""

from typing import Any

import numpy.typing as npt
from gguf import GGUFReader

MOST_VALUES = 8_000_000  # in a head; a vocabulary of 262,144 with its merges has some 2 million


class BoundedReader(GGUFReader):
    """Reads no value that lies behind the file's end, and not more values than a vocabulary has:
    an array's length is a number in the file, and each of its values takes some 300 bytes here.

    Raises:
        ValueError: the file asks for more.
    """

    _values = 0

    def _get(
        self, offset: int, dtype: npt.DTypeLike, count: int = 1, *more: Any, **named: Any
    ) -> Any:
        found = super()._get(offset, dtype, count, *more, **named)
        self._values += 1
        if len(found) < int(count):
            raise ValueError("a value lies behind its end")
        if self._values > MOST_VALUES:
            raise ValueError(f"its head has more than {MOST_VALUES:,} values")
        return found
