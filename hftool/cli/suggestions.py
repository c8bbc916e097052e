"""Suggest what to type instead of an unknown command or option, or of a text without quotes.

A suggestion is close in meaning, by the names that other programs use, or a likely slip of the
fingers; nothing is suggested for a name that only looks a little alike.
"""

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from hftool import config
from hftool.catalogue import BUILT_IN
from hftool.cli import foreign_names
from hftool.errors import UsageError

CLOSE_IN_SPELLING = 0.75  # difflib's ratio; "lits" and "list" have it, "adapter" and "dtype" 0.5
MAX_QUOTED = 60  # characters of a text in a hint

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_CURLY = ("“", "”", "„", "‘", "’", "«", "»")  # quotation marks that a shell does not know
_DASHES = ("–", "—")
_PLAIN = re.compile(r"[^\"\\$`!]*")


def instead_of_option(name: str, context: Any) -> str | None:
    """Return a hint for an unknown option; None if no option is close."""
    if context.parent is None:  # it is before the command
        commands = context.command.commands.values()
        if any(name in _options(command) for command in commands):
            return f"options come after the command: hftool COMMAND {name} …"
        return _did_you_mean(name, _options(context.command), foreign_names.OPTIONS)
    if hint := foreign_names.OPTION_HINTS.get((context.info_name, name.replace("_", "-"))):
        return hint
    name = name.replace("_", "-")
    if name in foreign_names.TEXT_OPTIONS and _takes_text(context):
        return f'the text stands without an option: {context.command_path} "TEXT"'
    names = _options(context.command)
    others = _options_of_other_commands(context)
    close = _close(name, [*names, *others])
    if name not in foreign_names.OPTIONS and close in others:
        return f"{close} is an option of {', '.join(others[close])}"
    return _did_you_mean(name, names, foreign_names.OPTIONS)


def instead_of_command(name: str, context: Any) -> str | None:
    """Return a hint for an unknown command of a group; None if no command is close."""
    is_root = context.parent is None
    if is_root and is_model(name):
        return f"the model goes with -m, after the command: hftool COMMAND -m {name} …"
    if is_root and name in foreign_names.COMMAND_HINTS:
        return foreign_names.COMMAND_HINTS[name]
    return _did_you_mean(
        name, getattr(context.command, "commands", {}), foreign_names.COMMANDS if is_root else {}
    )


def instead_of_words(words: Sequence[str], context: Any) -> UsageError:
    """Return the error for words that are more than a command's arguments."""
    error = f"unexpected argument '{words[0]}'"
    path = context.command_path
    arguments = [p for p in context.command.params if p.param_type_name == "argument"]
    values = [context.params.get(argument.name) for argument in arguments]
    line = [*(str(value) for value in values if value is not None), *words]
    if line[0].startswith(_DASHES):
        return UsageError(error, f"'{line[0]}' begins with a dash, not with two hyphens (--)")
    if line[0].startswith(_CURLY):
        line = [" ".join(line).strip("".join(_CURLY))]
    if is_model(line[0]) and "-m" in _options(context.command):
        text = f" {quoted(line[1:])}" if line[1:] else ""
        return UsageError(error, f"the model goes with -m: {path} -m {line[0]}{text}")
    if _takes_text(context):
        several = "; several texts: --lines" if "--lines" in _options(context.command) else ""
        return UsageError(error, f"put the text in quotes: {path} {quoted(line)}{several}")
    if context.info_name == "chat":
        hint = (
            f"chat reads from the terminal; for one answer: hftool generate --chat {quoted(line)}"
        )
        return UsageError(error, hint)
    return UsageError(error, f"see: {path} --help")


def _takes_text(context: Any) -> bool:
    arguments = (p for p in context.command.params if p.param_type_name == "argument")
    return any(argument.display_name_raw == "TEXT" for argument in arguments)


def is_model(word: str) -> bool:
    """Return whether a word looks like a model: an alias, a hub id, or a path to one."""
    if word in BUILT_IN or word in config.load().aliases or word.endswith(".gguf"):
        return True
    in_folder = any(
        os.path.isfile(os.path.join(word, n)) for n in ("config.json", "tokenizer.json")
    )
    return in_folder or _HUB_ID.fullmatch(word) is not None


def _options(command: Any) -> list[str]:
    return [n for p in command.params if p.param_type_name == "option" for n in p.opts]


def _options_of_other_commands(context: Any) -> dict[str, list[str]]:
    """Return the options that this command does not have, and the commands that have them."""
    own = _options(context.command)
    others: dict[str, list[str]] = {}
    for name, command in context.find_root().command.commands.items():
        for option in _options(command):
            if option.startswith("--") and option not in own:
                others.setdefault(option, []).append(name)
    return others


def _did_you_mean(name: str, names: Iterable[str], synonyms: dict[str, str]) -> str | None:
    synonym = synonyms.get(name)
    if synonym and synonym.split()[0] in names:
        return f"did you mean '{synonym}'?"
    close = _close(name, names)
    return f"did you mean '{close}'?" if close else None


def _close(name: str, names: Iterable[str]) -> str | None:
    bare = {own.lstrip("-"): own for own in names}
    if len(word := name.lstrip("-").lower()) == 1:  # a letter is close to nothing
        return None
    close = difflib.get_close_matches(word, bare, 1, CLOSE_IN_SPELLING)
    return bare[close[0]] if close else None


def quoted(words: Sequence[str]) -> str:
    text = " ".join(words)
    text = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
    return f'"{text}"' if _PLAIN.fullmatch(text) else shlex.quote(text)
