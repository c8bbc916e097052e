"""Types and ranges of options that are set elsewhere than on the command line.

`/set` in a chat, the records of a batch file and saved chats take the same values as the options
of the same names.
"""

import json
import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from hftool.errors import UsageError

_IN_WORDS = {bool: "on or off", str: "a text", list: "a text or a list of texts"}
SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class OptionRange:
    """An option that is a number, a switch, a text or a list of texts, and the values it takes.

    Attributes:
        name: of the dataclass's field.
        names: all names of the option on the command line.
        least: the smallest number allowed.
        most: the largest number allowed.
    """

    name: str
    names: tuple[str, ...]
    type: type[bool] | type[int] | type[float] | type[str] | type[list[str]]
    default: Any
    least: float | None
    most: float | None

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.type in _IN_WORDS:
            return _IN_WORDS[self.type]
        kind = "a whole number" if self.type is int else "a number"
        if self.least is None:
            return kind
        if self.most is None:
            return f"{kind} of at least {self.least}"
        return f"{kind} from {self.least} to {self.most}"

    def parsed(self, text: str) -> Any:
        """Return the value that a text represents.

        Raises:
            UsageError: the option does not take it.
        """
        if self.type is list:
            return self.checked(_json_list(text) or [text], shown=text)
        try:
            value = SWITCH[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            value = None
        return self.checked(value, shown=text)

    def checked(self, value: Any, shown: object = None) -> Any:
        """Return a value from JSON if the option takes it.

        Args:
            shown: what the error shows instead of the value.

        Raises:
            UsageError: the option does not take it.
        """
        if self.type is list:
            if isinstance(value, dict):  # of numbers, as for --bias
                value = [f"{text}={number}" for text, number in value.items()]
            value = [value] if isinstance(value, str) else value
            right = isinstance(value, list) and all(isinstance(text, str) for text in value)
        else:
            types = (int, float) if self.type is float else (self.type,)
            right = type(value) in types and (self.type is str or self._in_range(value))
        if not right:
            given = str(value if shown is None else shown)[:40]
            raise UsageError(f"{self.name} must be {self.allowed}, not '{given}'")
        return value

    def _in_range(self, value: float) -> bool:
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer beyond any float
            return False
        above = self.least is None or value >= self.least
        return finite and above and (self.most is None or value <= self.most)


def _json_list(text: str) -> list[Any]:
    """Return the list that a text is in JSON, else an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


@cache
def option_ranges(options: Any) -> dict[str, OptionRange]:
    """Return those fields of a dataclass of options that are set elsewhere too, by field: all but
    file names."""
    hints = get_type_hints(options, include_extras=True)
    ranges: dict[str, OptionRange] = {}
    for item in fields(options):
        hint, option = get_args(hints[item.name])
        kinds = [get_origin(kind) or kind for kind in (get_args(hint) or (hint,))]
        types = [kind for kind in kinds if kind in (bool, int, float, str, list)]
        if types:
            ranges[item.name] = OptionRange(
                item.name, option.names, types[0], item.default, option.min, option.max
            )
    return ranges
