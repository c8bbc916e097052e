"""Find the variable by which a chat template turns a model's reasoning on or off.

Each family calls it something else: `enable_thinking` (Qwen 3, GLM), `thinking` (DeepSeek V3.1,
Granite), `reasoning_effort` (gpt-oss), `thinking_mode` (MiniMax M3), `thinking_budget` (Seed-OSS).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile("think|reason|thought", re.IGNORECASE)
# These concern the reasoning in earlier answers, or hold a text.
_OTHER = re.compile("keep|past|clear|preserve|truncate|drop|history|include|content|text|part")
_INVERTED = re.compile("^(no|non|skip|disable|without|hide)_")
_DEGREE = re.compile("effort|strength|level")
_ON = ("on", "enabled", "enable", "true", "yes", "think", "thinking")
_OFF = ("off", "disabled", "disable", "false", "no", "none", "no_think", "nothink", "non-thinking")


@dataclass(frozen=True)
class Switch:
    """A variable, and its values that turn reasoning on and off; None leaves it unset."""

    name: str
    on: Any
    off: Any

    def values(self, think: bool) -> dict[str, Any]:
        """Return the variable as it should be set, if at all."""
        value = self.on if think else self.off
        return {} if value is None else {self.name: value}


def possible_switches(variables: Mapping[str, list[str]]) -> Iterator[Switch]:
    """Yield what may be a template's switch, the most likely first.

    Args:
        variables: those that the template reads, each with the texts it is compared with.
    """
    names = sorted(n for n in variables if _NAME.search(n) and not _OTHER.search(n))
    switches = [_switch(name, variables[name]) for name in names]
    yield from sorted(switches, key=_unlikelihood)


def _switch(name: str, compared: list[str]) -> Switch:
    off = next((text for text in compared if text.lower() in _OFF), None)
    if _DEGREE.search(name):
        return Switch(name, "high", off or "low")
    if "budget" in name:
        return Switch(name, None, 0)
    on = next((text for text in compared if text.lower() in _ON), None)
    if on or off:
        return Switch(name, on, off)
    return Switch(name, False, True) if _INVERTED.search(name) else Switch(name, True, False)


def _unlikelihood(switch: Switch) -> tuple[bool, bool, bool, str]:
    return (
        switch.name != "enable_thinking",
        type(switch.off) is not bool,
        switch.off is True,
        switch.name,
    )
