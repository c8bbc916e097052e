"""The settings of a chat by name, as `/set` and saved conversations use them."""

import difflib
from dataclasses import replace
from functools import cache

from hftool.errors import UsageError
from hftool.options.generation import AnswerOptions
from hftool.options.ranges import OptionRange, option_ranges

UNSET = "default"  # the value that resets a setting


@cache
def settings_by_name() -> dict[str, OptionRange]:
    """Return each setting under all names of its option, in snake case: `temperature`, `temp`, …"""
    settings = option_ranges(AnswerOptions).values()
    return {_snake_case(name): s for s in settings for name in (s.name, *s.names)}


def _snake_case(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def change_setting(options: AnswerOptions, name: str, text: str) -> AnswerOptions:
    """Return the options with one setting changed; the text `default` resets it.

    Raises:
        UsageError: no setting has this name, or the setting cannot have this value.
    """
    by_name = settings_by_name()
    setting = by_name.get(_snake_case(name))
    if setting is None:
        names = sorted({s.name for s in by_name.values()})
        close = difflib.get_close_matches(_snake_case(name), by_name, n=1)
        raise UsageError(
            f"unknown setting '{name[:40]}'",
            f"did you mean {close[0]}?" if close else f"the settings are {', '.join(names)}",
        )
    value = setting.default if text.lower() == UNSET else setting.parsed(text)
    return replace(options, **{setting.name: value})
