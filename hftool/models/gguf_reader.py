"""Read the header of a GGUF file, which may be broken: no number in it is trusted.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MAX_VALUES = 8_000_000  # in a header; a vocabulary of 262,144 has about 2 million with its merges
ALIGNMENT = 32  # bytes, of the tensors, if the header has none
STRING, ARRAY = 8, 9
# The other types of values, by their numbers in the format.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file: `shape` as in PyTorch, `kind` a `gguf.GGMLQuantizationType`.

    `begin` is where it begins in the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class GgufHeader:
    """The values and the tensors that a GGUF file's header lists.

    `data_end` is the size that the file must have at least, in bytes.
    """

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_end: int

    @property
    def rows(self) -> int | None:
        """The number of rows of the embedding, None if it is not in the file."""
        return next((t.shape[0] for t in self.tensors if t.name == "token_embd.weight"), None)


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file.

    Raises:
        OSError: it can't be read.
        ValueError: it is cut off, not a GGUF file, or has more values than a vocabulary has.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, ZeroDivisionError, OverflowError, UnicodeDecodeError) as error:
                raise ValueError(f"a value is beyond its end, or broken: {error}") from None


def read_numbers(path: Path, tensor: GgufTensor) -> list[float]:
    """Return the numbers of a tensor of float32 or float16 in a file.

    Raises:
        ValueError: it is of another type.
    """
    import numpy as np

    kinds: dict[int, Any] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
    if tensor.kind not in kinds:
        raise ValueError(f"{tensor.name} is neither float32 nor float16")
    count = math.prod(tensor.shape)
    numbers = np.fromfile(path, kinds[tensor.kind], count, offset=tensor.begin)
    return [float(number) for number in numbers]


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0
        self.values = 0

    def header(self) -> GgufHeader:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.place = 4
        (version,) = self._numbers("I")
        if version not in (2, 3):
            raise ValueError(f"it is of version {version}, not 2 or 3")
        tensors, pairs = self._numbers("QQ")
        self._count(tensors + pairs)
        metadata = {}
        for _ in range(pairs):
            key = self._string()
            metadata[key] = self._value(*self._numbers("I"))
        found = [self._tensor() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", ALIGNMENT))
        data = -(-self.place // alignment) * alignment
        found = [replace(tensor, begin=data + tensor.begin) for tensor in found]
        end = max((tensor.begin + _bytes(tensor) for tensor in found), default=data)
        return GgufHeader(metadata, tuple(found), end)

    def _tensor(self) -> GgufTensor:
        """Read a tensor; its `begin` is then counted from the first one."""
        name = self._string()
        (dimensions,) = self._numbers("I")
        shape = self._numbers("Q" * self._count(dimensions))
        kind, offset = self._numbers("IQ")
        return GgufTensor(name, shape[::-1], kind, offset)

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._numbers(_format(kind))[0]
        kind, count = self._numbers("IQ")
        self._count(count)
        if kind in (STRING, ARRAY):
            return [self._value(kind) for _ in range(count)]
        return list(self._numbers(f"{count}{_format(kind)}"))

    def _count(self, count: int) -> int:
        """Count values before they are read, so that a false number of them costs nothing."""
        self.values += count
        if self.values > MAX_VALUES:
            raise ValueError(f"its header has more than {MAX_VALUES:,} values")
        return count

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        begin, self.place = self.place, self.place + length
        if self.place > len(self.data):
            raise ValueError("a value is beyond its end")
        return self.data[begin : self.place].decode("utf-8")

    def _numbers(self, form: str) -> tuple[Any, ...]:
        numbers = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return numbers


def _format(kind: int) -> str:
    if kind not in NUMBERS:
        raise ValueError(f"it has a value of the type {kind}, which is not in the format")
    return NUMBERS[kind]


def _bytes(tensor: GgufTensor) -> int:
    """Return the bytes that a tensor takes in the file.

    Raises:
        ValueError: its type is not in the format.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    return math.prod(tensor.shape) // int(numbers) * int(size)
