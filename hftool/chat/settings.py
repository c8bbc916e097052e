"""The settings of a chat by name, as `/set` and saved conversations give them."""

import difflib
from dataclasses import replace
from functools import cache

from hftool.errors import UsageError
from hftool.options.generation import AnswerOptions
from hftool.options.ranges import OptionRange, option_ranges

UNSET = "default"  # the value that takes a setting back


@cache
def settings_by_name() -> dict[str, OptionRange]:
    """Each setting under all names of its option, in snake case: `temperature`, `temp`, …"""
    settings = option_ranges(AnswerOptions).values()
    return {_plain(name): s for s in settings for name in (s.name, *s.names)}


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
    value = setting.default if text.lower() == UNSET else setting.parsed(text)
    return replace(options, **{setting.name: value})
