"""Options that say what a generated text must look like."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from hftool.options.shared import option

ConstraintKind = Literal["schema", "regex", "choice", "grammar"]
CONSTRAINTS: tuple[ConstraintKind, ...] = get_args(ConstraintKind)

_constraint = functools.partial(option, panel="Constraints")


@dataclass(frozen=True)
class Constraint:
    """What a text must look like, by the option that says so.

    `text` is a JSON Schema, a regular expression, a JSON list of texts, or a Lark grammar.
    """

    kind: ConstraintKind
    text: str


@dataclass(frozen=True)
class ConstraintOptions:
    """The constraint of a text; at most one is given."""

    schema: Annotated[
        str | None,
        _constraint(
            "--schema",
            metavar="SCHEMA",
            help="JSON that satisfies a JSON Schema: its text, a FILE, or 'name, age int'.",
            common=True,
        ),
    ] = None
    regex: Annotated[
        str | None,
        _constraint("--regex", metavar="REGEX", help="A text that matches REGEX as a whole."),
    ] = None
    choice: Annotated[
        list[str] | None,
        _constraint("--choice", metavar="TEXT", help="One of several texts (repeatable)."),
    ] = None
    grammar: Annotated[
        Path | None,
        _constraint("--grammar", metavar="FILE", help="A text of the Lark grammar in FILE."),
    ] = None
