"""Types and ranges of options that are set elsewhere than on the command line.

`/set` in a chat, the records of a batch file and saved chats take the same values as the options
of the same names.
"""

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from hftool.errors import UsageError

SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class OptionRange:
    """An option that is a number or a switch, and the values it takes.

    Attributes:
        name: of the dataclass's field.
        names: all names of the option on the command line.
        least: the smallest number allowed.
        most: the largest number allowed.
    """

    name: str
    names: tuple[str, ...]
    type: type[bool] | type[int] | type[float]
    default: Any
    least: float | None
    most: float | None

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.type is bool:
            return "on or off"
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
        types = (int, float) if self.type is float else (self.type,)
        if type(value) not in types or not self._in_range(value):
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


@cache
def option_ranges(options: Any) -> dict[str, OptionRange]:
    """Return the numbers and switches among the fields of a dataclass of options, by field."""
    hints = get_type_hints(options, include_extras=True)
    ranges: dict[str, OptionRange] = {}
    for item in fields(options):
        hint, option = get_args(hints[item.name])
        types = [kind for kind in (get_args(hint) or (hint,)) if kind in (bool, int, float)]
        if types:
            ranges[item.name] = OptionRange(
                item.name, option.names, types[0], item.default, option.min, option.max
            )
    return ranges
