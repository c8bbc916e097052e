"""Read JSON Schemas, and narrow what llguidance takes more loosely than the standard."""

import json
import re
from collections.abc import Callable
from typing import Any

from hftool.errors import UsageError

SHORT_TYPES = {
    **dict.fromkeys(("str", "string", "text"), "string"),
    **dict.fromkeys(("int", "integer"), "integer"),
    **dict.fromkeys(("float", "number"), "number"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
}
_SHORT_FIELD = re.compile(r"(\w[\w-]*)(?:\s+(\w+))?(\[\])?")

# White space between the tokens of JSON: a space, or a line break and an indentation. Without a
# bound, a small model may go on with it until it is cut off.
WHITE_SPACE = r"[ ]|\n[ ]{0,40}"

_ONE, _MANY = "one", "many"
_SUBSCHEMAS = {  # the keywords that hold schemas: one or a list, or by name
    **dict.fromkeys(
        (
            *("items", "additionalItems", "prefixItems", "additionalProperties"),
            *("allOf", "anyOf", "oneOf"),
        ),
        _ONE,
    ),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), _MANY),
}

_DAY_28, _DAY_30, _DAY_31 = "0[1-9]|1[0-9]|2[0-8]", "0[1-9]|[12][0-9]|30", "0[1-9]|[12][0-9]|3[01]"
_LEAP = (
    "[0-9]{2}(0[48]|[2468][048]|[13579][26])",
    "([02468][048]|[13579][26])00",
)
_DATE = (
    f"([0-9]{{4}}-(0[13578]|1[02])-({_DAY_31})|[0-9]{{4}}-(0[469]|11)-({_DAY_30})"
    f"|[0-9]{{4}}-02-({_DAY_28})|({'|'.join(_LEAP)})-02-29)"
)
_NO_LEAP_SECOND = "([^:]*:){2}[0-5][^:]*(:[0-9]{2})?"
# llguidance takes any 29th of February, and a leap second at any minute.
_STRICT_FORMATS = {
    "date": f"^{_DATE}$",
    "date-time": f"^{_DATE}[Tt]{_NO_LEAP_SECOND}$",
    "time": f"^{_NO_LEAP_SECOND}$",
}
_WORD = "[A-Za-z0-9._~-]+"
_PATH = f"{_WORD}(/{_WORD})*/?"
_URI = f"https?://[a-z0-9]+([.-][a-z0-9]+)*(:[0-9]{{1,4}})?(/({_PATH})?)?(\\?[A-Za-z0-9=&]*)?(#[A-Za-z0-9]*)?"
_REFERENCE = f"({_URI}|/?{_PATH}|/?)"
_POINTER = "(/([^/~]|~[01])*)*"
_LABEL = "[a-z][a-z0-9]{0,62}"
# Formats that llguidance does not know: patterns that match only such texts, if not all of them.
_OTHER_FORMATS = {
    "uri-template": "([A-Za-z0-9._~:/?#@!$&()*+,;=-]|\\{[A-Za-z0-9_]+(,[A-Za-z0-9_]+)*\\})*",
    "uri-reference": _REFERENCE,
    "iri": _URI,
    "iri-reference": _REFERENCE,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(0|[1-9][0-9]*)(#|{_POINTER})",
    "idn-hostname": f"{_LABEL}([.]{_LABEL}){{0,2}}",
    "idn-email": f"{_LABEL}@{_LABEL}([.]{_LABEL}){{0,2}}",
}
_NO_BYTE_ORDER_MARK = "^[^\ufeff]*$"  # white space in JSON Schema's regular expressions


def parse_schema(text: str) -> Any:
    """Return a JSON Schema from its text, or from the short form `name, age int, tags str[]`.

    Raises:
        ValueError: it is neither.
    """
    if text.lstrip().startswith(("{", "true", "false")):
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"it is not valid JSON: {error}") from None
    properties = {}
    for field in filter(None, map(str.strip, re.split(r"[,\n]", text))):
        match = _SHORT_FIELD.fullmatch(field)
        if match is None:
            raise ValueError(f"'{field[:40]}' is not a name, perhaps with a type")
        name, type_name, is_list = match.groups()
        if (type_name or "str") not in SHORT_TYPES:
            raise ValueError(f"'{type_name}' is not a type: str, int, float or bool")
        schema = {"type": SHORT_TYPES[type_name or "str"]}
        properties[name] = {"type": "array", "items": schema} if is_list else schema
    if not properties:
        raise ValueError("it is empty")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def llguidance_schema(schema: Any) -> Any:
    """Return a schema for llguidance, which accepts nothing that the given one does not.

    Raises:
        UsageError: that cannot be said.
    """
    if isinstance(schema, dict):
        schema = dict(schema)
        # The $id of the whole changes nothing for a reference within it.
        own = {"$id": schema.pop("$id")} if _refers_within(schema) and "$id" in schema else {}
        schema = {**own, **_mapped(schema, _narrowed)}
        schema["x-guidance"] = {"whitespace_pattern": WHITE_SPACE}
    return schema


def _refers_within(schema: dict[str, Any]) -> bool:
    return str(schema.get("$ref")).startswith("#")


def _mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a schema with all its subschemas changed, and itself."""
    if isinstance(schema, list):
        return [_mapped(item, change) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for keyword, value in schema.items():
        kind = _SUBSCHEMAS.get(keyword)
        if kind == _ONE:
            result[keyword] = _mapped(value, change)
        elif kind == _MANY and isinstance(value, dict):
            result[keyword] = {name: _mapped(item, change) for name, item in value.items()}
    return change(result)


def _narrowed(schema: dict[str, Any]) -> dict[str, Any]:
    if (
        "$id" in schema and "$ref" in schema
    ):  # whether $id changes what $ref is depends on the draft
        raise UsageError("--schema: the schema has $id beside $ref, which cannot be kept")
    patterns = []
    if isinstance(name := schema.get("format"), str) and name in _STRICT_FORMATS:
        patterns.append(_STRICT_FORMATS[name])
    if isinstance(name, str) and name in _OTHER_FORMATS:
        schema = {keyword: value for keyword, value in schema.items() if keyword != "format"}
        patterns.append(f"^({_OTHER_FORMATS[name]})$")
    if isinstance(pattern := schema.get("pattern"), str) and re.search(r"\\[sS]", pattern):
        patterns.append(_NO_BYTE_ORDER_MARK)
    if not patterns:
        return schema
    return {**schema, "allOf": [*schema.get("allOf", ()), *({"pattern": p} for p in patterns)]}
