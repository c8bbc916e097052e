"""Read GGUF files with the library `gguf`, which trusts a file's numbers, within bounds."""

from typing import Any

import numpy.typing as npt
from gguf import GGUFReader

MAX_VALUES = 8_000_000  # in a header; a vocabulary of 262,144 has about 2 million with its merges


class BoundedReader(GGUFReader):
    """A reader that reads no value beyond the file's end, and no more values than a vocabulary has.

    The length of an array is a number in the file, and each value takes about 300 bytes in memory.

    Raises:
        ValueError: the file has a length beyond these bounds.
    """

    _values = 0

    def _get(
        self, offset: int, dtype: npt.DTypeLike, count: int = 1, *more: Any, **named: Any
    ) -> Any:
        values = super()._get(offset, dtype, count, *more, **named)
        self._values += 1
        if len(values) < int(count):
            raise ValueError("a value is beyond its end")
        if self._values > MAX_VALUES:
            raise ValueError(f"its header has more than {MAX_VALUES:,} values")
        return values
