"""The settings of a chat by name, as `/set` and saved conversations give them.

Names, types and ranges are those of the options (`hftool.options.AnswerOptions`).
"""

import difflib
import math
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, get_args, get_type_hints

from hftool.errors import UsageError
from hftool.options import AnswerOptions

UNSET = "default"  # the value that takes a setting back
SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class Setting:
    """An option that can be changed between two answers."""

    name: str
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

    def value(self, text: str) -> Any:
        """The value a text stands for.

        Raises:
            UsageError: it is none this setting can have.
        """
        try:
            value = SWITCH[text.lower()] if self.type is bool else self.type(text)
            fits = math.isfinite(value)
        except (KeyError, ValueError, OverflowError):
            fits = False
        if fits and self.least is not None:
            fits = self.least <= value and (self.most is None or value <= self.most)
        if not fits:
            raise UsageError(f"{self.name} must be {self.allowed}, not '{text[:40]}'")
        return value


@cache
def settings_by_name() -> dict[str, Setting]:
    """Each setting under the names of its option, in snake case: `temperature`, `temp`, …"""
    hints = get_type_hints(AnswerOptions, include_extras=True)
    found: dict[str, Setting] = {}
    for item in fields(AnswerOptions):
        hint, option = get_args(hints[item.name])
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind in (bool, int, float)]
        if not kinds:
            continue
        setting = Setting(item.name, kinds[0], item.default, option.min, option.max)
        for name in (item.name, option.default, *option.param_decls):  # typer's own storage
            found[_plain(name)] = setting
    return found


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def changed(options: AnswerOptions, name: str, text: str) -> AnswerOptions:
    """The options with one of them changed; `default` takes it back.

    Raises:
        UsageError: there is no such setting, or it can't have this value.
    """
    known = settings_by_name()
    setting = known.get(_plain(name))
    if setting is None:
        names = sorted({s.name for s in known.values()})
        close = difflib.get_close_matches(_plain(name), known, n=1)
        raise UsageError(
            f"there is no setting '{name[:40]}'",
            f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}",
        )
    value = setting.default if text.lower() == UNSET else setting.value(text)
    return replace(options, **{setting.name: value})
