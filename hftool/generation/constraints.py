"""What a generated text must look like: JSON of a schema, a match of a regular expression, one of
several texts, or a text of a grammar."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from hftool.errors import HftoolError, UsageError, exclude
from hftool.generation.json_schemas import llguidance_schema, parse_schema
from hftool.inputs.texts import one_text
from hftool.options.constraints import (
    CONSTRAINTS,
    Constraint,
    ConstraintKind,
    ConstraintOptions,
)
from hftool.options.inputs import FileOptions

RECORD_FIELDS = (*CONSTRAINTS, "response_format")
"""The fields of a batch record that ask for a constraint."""


def grammar_of(constraint: Constraint, before: str = "") -> str:
    """Return a constraint as the grammar that llguidance reads.

    Args:
        before: what may come before the text, as a regular expression; "" for nothing.
    """
    text = {"name": "text", **_definition(constraint)}
    if not before:
        return json.dumps({"grammars": [text]})
    start = {"lark_grammar": f"start: BEFORE @text\nBEFORE: /{before}/"}
    return json.dumps({"grammars": [start, text]})


def _definition(constraint: Constraint) -> dict[str, Any]:
    from llguidance import LLMatcher

    match constraint.kind:
        case "schema":
            return {"json_schema": llguidance_schema(json.loads(constraint.text))}
        case "regex":
            [definition] = json.loads(LLMatcher.grammar_from_regex(constraint.text))["grammars"]
            return {"lark_grammar": definition["lark_grammar"]}
        case "choice":
            texts = [json.dumps(text, ensure_ascii=False) for text in json.loads(constraint.text)]
            return {"lark_grammar": f"start: {' | '.join(texts)}"}
        case "grammar":
            return {"lark_grammar": constraint.text}


def checked(constraint: Constraint) -> Constraint:
    """Return a constraint if hftool can keep it.

    Raises:
        UsageError: it can't, whatever the model.
    """
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False)
    if error := LLMatcher.validate_grammar(grammar_of(constraint), limits=limits):
        raise UsageError(f"--{constraint.kind}: {one_line_cause(error)}")
    return constraint


def one_line_cause(error: str) -> str:
    """Return an error of llguidance in one line, with JSON Schema's keywords in its words."""
    first = re.split("<state>|<backtrace>|<non-verbose", error)[0].strip()
    if names := first.partition("Unimplemented keys: ")[2]:
        keywords = ", ".join(json.loads(names.partition("]")[0] + "]"))
        return f"the schema has {keywords}, which cannot be kept while a text is generated"
    if name := first.partition("Unknown format: ")[2]:
        name = " ".join(name.split())[:100]
        return f"the schema has the format {name}, which cannot be kept while a text is generated"
    if "coerce_one_of" in first:
        return "the schema has a oneOf with branches that a value may satisfy together: use anyOf"
    if "NoExtension" in first:
        return "no text satisfies it"
    return " ".join(first.split())[:300]


def read_constraint(options: ConstraintOptions) -> Constraint | None:
    """Return the constraint that options ask for.

    Raises:
        UsageError: there are several, or hftool cannot keep it.
        HftoolError: a file cannot be read.
    """
    given = {f"--{f.name}": getattr(options, f.name) is not None for f in fields(options)}
    exclude(given)
    constraint: Constraint | None = None
    if options.schema is not None:
        constraint = Constraint("schema", schema_text(options.schema))
    elif options.regex is not None:
        constraint = Constraint("regex", options.regex)
    elif options.choice is not None:
        constraint = choice_of(options.choice)
    elif options.grammar is not None:
        constraint = Constraint("grammar", one_text(None, FileOptions(options.grammar)))
    return None if constraint is None else checked(constraint)


def constraint_of_record(
    record: Mapping[str, Any], otherwise: Constraint | None
) -> Constraint | None:
    """Return the constraint that a batch record asks for by one of `RECORD_FIELDS`.

    Raises:
        HftoolError: it asks for several, or a field is not what it should be.
        UsageError: hftool cannot keep the constraint.
    """
    given = [name for name in RECORD_FIELDS if name in record]
    if len(given) > 1:
        raise HftoolError(f'"{given[0]}" excludes "{given[1]}"')
    if not given:
        return otherwise
    value = record[given[0]]
    if given[0] == "response_format":
        value = _schema_of_format(value)
        return None if value is None else checked(Constraint("schema", json.dumps(value)))
    if given[0] == "choice":
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise HftoolError('"choice" must be a list of texts')
        return checked(choice_of(value))
    if given[0] == "schema" and not isinstance(value, str):
        return checked(Constraint("schema", json.dumps(value, ensure_ascii=False)))
    if not isinstance(value, str):
        raise HftoolError(f'"{given[0]}" must be text')
    if given[0] == "schema":
        value = schema_text(value)
    return checked(Constraint(cast(ConstraintKind, given[0]), value))


def _schema_of_format(response_format: Any) -> Any:
    """Return the JSON Schema of OpenAI's `response_format`, None if it asks for a free text.

    Raises:
        HftoolError: it is not one.
    """
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    match kind:
        case "text":
            return None
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            named = response_format.get("json_schema")
            if isinstance(named, dict) and isinstance(named.get("schema"), dict):
                return named["schema"]
    raise HftoolError(
        '"response_format" must have the type text, json_object, or json_schema with a schema'
    )


def schema_text(given: str) -> str:
    """Return a JSON Schema as JSON, from its text, a file, or the short form.

    Raises:
        UsageError: it is none of these.
        HftoolError: the file cannot be read.
    """
    if not given.lstrip().startswith(("{", "true", "false")) and Path(given).is_file():
        given = one_text(None, FileOptions(Path(given)))
    try:
        return json.dumps(parse_schema(given), ensure_ascii=False)
    except ValueError as error:
        raise UsageError(
            f"--schema: {error}",
            "give a JSON Schema, a file with one, or names with types: 'name, age int'",
        ) from None


def choice_of(texts: list[str]) -> Constraint:
    """Return the constraint to one of several texts.

    Raises:
        UsageError: one is empty.
    """
    if "" in texts:
        raise UsageError("--choice: a text is empty")
    return Constraint("choice", json.dumps(texts, ensure_ascii=False))
