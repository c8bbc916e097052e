"""Records in JSON: one per line, an array of them, or one after the other."""

import functools
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from hftool.errors import HftoolError
from hftool.options.inputs import ByteErrors

log = logging.getLogger("hftool")

CHUNK = 1 << 16  # characters to read together
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()

Record = Mapping[str, Any]
NumberedRecords = Iterator[tuple[int, Record | HftoolError]]


def json_lines(lines: Iterable[str], errors: ByteErrors) -> NumberedRecords:
    """Yield the record on each line that is not blank, or why it is none, after its number."""
    for number, line in enumerate(lines, 1):
        if not line.isspace():
            text = line.removeprefix("\ufeff").rstrip()  # as where files were joined
            yield number, _record(text, errors)


def json_values(lines: Iterable[str], errors: ByteErrors, name: str) -> NumberedRecords:
    """Yield the records of an array, or of one object after the other, after their numbers; for a
    value that is not a record, why not.

    Memory holds a record and some of what follows it.

    Raises:
        HftoolError: where the JSON is broken, so that no more records can be found.
    """
    source, number = _Text(lines), 0
    source.skip(_SPACE)
    array = source.take("[")
    while source.skip(_BETWEEN if array or number else _SPACE):
        if array and source.take("]"):
            array = False
            if source.skip(_SPACE):
                raise HftoolError(f"{name}: text follows the end of the JSON array")
            return
        number += 1
        yield number, _record(source.value(f"{name}: record {number}"), errors)
    if array:
        raise HftoolError(f"{name}: not valid JSON: the array has no end")


class _Text:
    """A text of which only the part that is being read is in memory."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._text = ""
        self._at = 0

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Skip what matches, and return whether anything follows."""
        while True:
            match = pattern.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return True
            if not self._read_more(CHUNK):
                return False

    def take(self, character: str) -> bool:
        """Skip one character, if it comes next."""
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def value(self, place: str) -> str:
        """Return the next JSON value as text."""
        size = CHUNK
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
                # A number may go on in what has not been read yet.
                if end < len(self._text) or not self._read_more(size):
                    start, self._at = self._at, end
                    return self._text[start:end]
            except json.JSONDecodeError as error:
                if not self._read_more(size):
                    raise HftoolError(f"{place}: not valid JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:
                raise HftoolError(f"{place}: not valid JSON: {error}") from None
            size *= 2

    def _read_more(self, size: int) -> bool:
        """Read at least so many characters, if there are any; forget those before this place."""
        parts, length = [self._text[self._at :]], 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if length >= size:
                break
        self._text, self._at = "".join(parts), 0
        return length > 0


def _record(text: str, errors: ByteErrors) -> Record | HftoolError:
    try:
        record = _READER.decode(text)
        if "\\ud" in text.lower():  # perhaps half a surrogate pair, which can't be written as UTF-8
            if errors == "replace":
                record = _replaced(record)
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return HftoolError(
            "half a surrogate pair is not a character", "--errors replace reads it as U+FFFD"
        )
    except json.JSONDecodeError as error:
        return HftoolError(f"not valid JSON: {error.msg} (character {error.colno})")
    except (ValueError, RecursionError) as error:
        return HftoolError(f"not valid JSON: {error}")
    if not isinstance(record, dict):
        return HftoolError(f"the record is {kind(record)}, not a JSON object")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, or raise where a key is repeated: which value is meant, nobody knows."""
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{repeated}' is repeated")
    return members


def _float(text: str) -> float:
    """Return a number, or raise where it is too large for one."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _constant(name: str) -> None:
    """Return null for NaN, as Python's own json writes a missing number; raise for infinity."""
    if name != "NaN":
        raise ValueError(f"{name} is not a number in JSON")
    report_nan()


@functools.cache
def report_nan() -> None:
    """Log once that a NaN was changed."""
    log.warning("NaN, which JSON does not have, is read as null")


_READER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


def _replaced(value: Any) -> Any:
    """Return a value with U+FFFD for each half of a surrogate pair."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return [_replaced(item) for item in value] if isinstance(value, list) else value


def kind(value: Any) -> str:
    """Return in words what kind of value this is, for an error."""
    name = type(value).__name__
    numbers = dict.fromkeys(("int", "float", "Decimal"), "a number")
    kinds = {"NoneType": "null", "dict": "an object", "list": "a list", "bool": "a boolean"}
    return (kinds | numbers).get(name, f"of type {name}")


def is_array(head: Iterable[str]) -> bool:
    """Return whether lines begin like a JSON array of records, and not like one list per line."""
    text = "".join(head).lstrip()
    return text.startswith("[") and text[1:].lstrip()[:1] in ("{", "]", "")


def begins_with_record(head: Iterable[str]) -> bool:
    """Return whether the first line that is not blank is a JSON object, or an array begins."""
    first = next((line for line in head if line.strip()), "").strip()
    if is_array(chain([first])):
        return first != "[]"
    try:
        return isinstance(json.loads(first), dict) if first.startswith("{") else False
    except ValueError:
        return re.match(r'\{\s*("(\\.|[^"])*"\s*:|$)', first) is not None
