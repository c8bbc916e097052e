"""JSON Schemas of the kinds that people ask models for, a line each."""

# ruff: noqa: E501

SCHEMAS = r"""
{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130}}, "required": ["name", "age"], "additionalProperties": false}
{"type": "object", "properties": {"sentiment": {"enum": ["positive", "negative", "neutral"]}, "confidence": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["sentiment", "confidence"]}
{"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4}
{"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": false, "minItems": 2}
{"type": "boolean"}
{"type": "null"}
{"type": ["string", "null"], "maxLength": 5}
{"const": {"version": 1}}
{"enum": ["a", 1, null, [true], {"b": 2}]}
{"type": "integer", "multipleOf": 7}
{"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 5}
{"type": "number", "minimum": -1.5, "maximum": 2.25}
{"type": "number", "multipleOf": 0.25}
{"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"}
{"type": "string", "pattern": "[0-9]"}
{"type": "string", "minLength": 3, "maxLength": 6}
{"type": "string", "pattern": "^(\\([0-9]{3}\\))?[0-9]{3}-[0-9]{4}$"}
{"type": "string", "pattern": "^\\S+ \\S+$", "maxLength": 9}
{"type": "string", "pattern": "^\\w+\\s\\d$"}
{"type": "string", "format": "date"}
{"type": "string", "format": "time"}
{"type": "string", "format": "date-time"}
{"type": "string", "format": "duration"}
{"type": "string", "format": "email"}
{"type": "string", "format": "ipv4"}
{"type": "string", "format": "ipv6"}
{"type": "string", "format": "uuid"}
{"type": "string", "format": "hostname"}
{"type": "string", "format": "uri"}
{"type": "object", "properties": {"born": {"type": "string", "format": "date", "pattern": "^19"}}, "required": ["born"], "additionalProperties": false}
{"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}
{"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2}
{"type": "object", "patternProperties": {"^x-": {"type": "string"}, "^n-": {"type": "integer"}}, "additionalProperties": false}
{"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false}
{"type": "object", "properties": {"id": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["x", "y"]}}}, "required": ["id"]}
{"anyOf": [{"type": "string", "maxLength": 4}, {"type": "integer"}]}
{"anyOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"], "additionalProperties": false}, {"type": "object", "properties": {"kind": {"const": "square"}, "a": {"type": "number"}}, "required": ["kind", "a"], "additionalProperties": false}]}
{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "boolean"}]}
{"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"], "additionalProperties": false}, {"type": "object", "properties": {"t": {"const": "b"}}, "required": ["t"], "additionalProperties": false}]}
{"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}
{"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]}
{"allOf": [{"pattern": "^a"}, {"pattern": "z$"}], "type": "string"}
{"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"], "additionalProperties": false}}, "$ref": "#/$defs/node"}
{"definitions": {"point": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}}, "type": "array", "items": {"$ref": "#/definitions/point"}, "maxItems": 3}
{"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}, "required": ["children"], "additionalProperties": false}
{"$id": "https://example.com/tree", "type": "object", "properties": {"left": {"$ref": "#/$defs/leaf"}}, "required": ["left"], "$defs": {"leaf": {"type": "integer"}}}
{"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 2}
{"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "minItems": 2, "maxItems": 3}
{"type": "array", "maxItems": 2}
{"type": "object", "properties": {"title": {"type": "string", "title": "Title", "description": "of the book", "default": "x", "examples": ["y"]}}, "required": ["title"]}
{"type": "object", "properties": {"question": {"type": "string"}, "options": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3}, "answer": {"type": "integer", "minimum": 0, "maximum": 2}}, "required": ["question", "options", "answer"], "additionalProperties": false}
{"type": "object", "properties": {"function": {"enum": ["search", "open"]}, "arguments": {"type": "object", "properties": {"query": {"type": "string"}, "k": {"type": "integer", "minimum": 1, "maximum": 10}}, "required": ["query"], "additionalProperties": false}}, "required": ["function", "arguments"], "additionalProperties": false}
{"type": "object", "properties": {"entities": {"type": "array", "maxItems": 2, "items": {"type": "object", "properties": {"text": {"type": "string"}, "label": {"enum": ["PER", "LOC", "ORG"]}, "start": {"type": "integer", "minimum": 0}}, "required": ["text", "label", "start"], "additionalProperties": false}}}, "required": ["entities"], "additionalProperties": false}
{"type": "object", "properties": {"summary": {"type": "string", "maxLength": 40}, "keywords": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "minItems": 1, "maxItems": 3}}, "required": ["summary", "keywords"], "additionalProperties": false}
{"type": "object", "properties": {"price": {"type": "number", "exclusiveMinimum": 0}, "currency": {"type": "string", "pattern": "^[A-Z]{3}$"}}, "required": ["price", "currency"], "additionalProperties": false}
{"type": "object", "properties": {"a\"b": {"type": "integer"}, "c\\d": {"type": "integer"}, "é": {"type": "integer"}}, "required": ["a\"b", "c\\d", "é"], "additionalProperties": false}
{"type": "object", "properties": {"format": {"const": "date"}, "pattern": {"enum": ["\\S"]}}, "required": ["format", "pattern"], "additionalProperties": false}
{"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "additionalProperties": false}
{"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": {"type": "string", "maxLength": 3}}
{"type": "object", "required": ["a", "b"], "additionalProperties": {"type": "integer"}}
{"type": "object"}
{"minimum": 5}
{"minLength": 3, "maxLength": 4}
{"maxItems": 1}
true
{}
{"type": ["integer", "boolean"]}
{"type": "string", "enum": ["North", "South"]}
{"type": "integer", "enum": [1, 2, 3], "minimum": 2}
{"type": "number", "minimum": 0, "exclusiveMaximum": 1}
{"type": "integer", "minimum": 1000, "maximum": 1234567}
{"type": "string", "const": "yes"}
{"type": "string", "pattern": "^$"}
{"type": "string", "pattern": "^[^\"\\\\]{1,5}$"}
{"type": "string", "pattern": "^(a|b)*$", "minLength": 2, "maxLength": 5}
{"type": "string", "pattern": "^[A-ZÄ][a-zä]{1,3}$"}
{"type": "string", "pattern": "^[\\u0430-\\u044f]{2,4}$"}
{"type": "object", "properties": {"status": {"type": "string", "enum": ["ok", "error"]}, "error": {"type": ["string", "null"], "maxLength": 9}}, "required": ["status", "error"], "additionalProperties": false}
{"type": "object", "properties": {"steps": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "object", "properties": {"explanation": {"type": "string"}, "output": {"type": "string"}}, "required": ["explanation", "output"], "additionalProperties": false}}, "final_answer": {"type": "string"}}, "required": ["steps", "final_answer"], "additionalProperties": false}
"""
