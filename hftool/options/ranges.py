"""Options that are given elsewhere than on the command line: their types and ranges.

Names, types and ranges are those of the dataclasses in `hftool.options.model`.
"""

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from hftool.errors import UsageError

SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class OptionRange:
    """An option that is a number or a switch; `names` are all it has on the command line."""

    name: str
    names: tuple[str, ...]
    type: type[bool] | type[int] | type[float]
    default: Any
    least: float | None
    most: float | None

    @property
    def allowed(self) -> str:
        """Its values, in words."""
        if self.type is bool:
            return "on or off"
        kind = "a whole number" if self.type is int else "a number"
        if self.least is None:
            return kind
        if self.most is None:
            return f"{kind} of at least {self.least}"
        return f"{kind} from {self.least} to {self.most}"

    def parsed(self, text: str) -> Any:
        """The value a text stands for.

        Raises:
            UsageError: it is none this setting can have.
        """
        try:
            value = SWITCH[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            value = None
        return self.checked(value, shown=text)

    def checked(self, value: Any, shown: object = None) -> Any:
        """A value of JSON's types, which is returned.

        Raises:
            UsageError: it is none this setting can have; `shown` is what the error calls it.
        """
        kinds = (int, float) if self.type is float else (self.type,)
        if type(value) not in kinds or not self._in_range(value):
            words = str(value if shown is None else shown)[:40]
            raise UsageError(f"{self.name} must be {self.allowed}, not '{words}'")
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
    """The numbers and switches among the fields of a dataclass of options, by field."""
    hints = get_type_hints(options, include_extras=True)
    found: dict[str, OptionRange] = {}
    for item in fields(options):
        hint, option = get_args(hints[item.name])
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind in (bool, int, float)]
        if kinds:
            names = (option.default, *option.param_decls)  # typer's own storage
            found[item.name] = OptionRange(
                item.name, names, kinds[0], item.default, option.min, option.max
            )
    return found
