"""The JSON Schema of a suite, with which editors complete and explain suites.

It is made from the forms and their docstrings. It offers what comes with fxeval, and it is only a
help: which ids exist and which keys go together is decided when a suite is collected.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from fxeval import datasets, explainers
from fxeval.suite.format import ROLE, suite_form
from fxeval.suite.preflight import SHIPPED_CARDS
from fxeval.suite.words import NAME

_Schema = dict[str, Any]
_REFS = {"model": "ModelId", "explainer": "ExplainerId", "pairs": "PairsId"}


def suite_schema() -> _Schema:
    """Return the JSON Schema of a suite."""
    schema = _with_refs(suite_form().model_json_schema(schema_generator=_Generator))
    _let_extend(schema)
    schema["$defs"] |= {
        _REFS["model"]: _offering("card", *SHIPPED_CARDS),
        _REFS["explainer"]: _offering(*explainers.SHIPPED),
        _REFS["pairs"]: _offering(*datasets.SHIPPED),
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _let_extend(schema: _Schema) -> None:
    """Let a suite that extends another leave out checks, and keys of checks, of that one."""
    checks = schema["properties"]["checks"]
    kinds = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in checks["items"]["oneOf"]]
    keys: dict[str, list[_Schema]] = {}
    for kind in kinds:
        for key, entry in kind["properties"].items():
            if entry not in keys.setdefault(key, []):
                keys[key].append(entry)
    schema["$defs"] |= {
        "Check": checks["items"],
        "Replaced": {
            "description": "A check of the extended suite, by its id, and the keys to replace.",
            "type": "object",
            "required": ["id"],
            "additionalProperties": False,
            "properties": {key: _any_of(entries) for key, entries in keys.items()},
        },
    }
    either = [{"$ref": "#/$defs/Check"}, {"$ref": "#/$defs/Replaced"}]
    checks["items"] = {"anyOf": either}
    schema["required"].remove("checks")
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = {"required": ["checks"], "properties": {"checks": {"items": either[0]}}}


def _any_of(entries: list[_Schema]) -> _Schema:
    """Return what one of several kinds of checks takes for a key."""
    if len(entries) == 1:
        return entries[0]
    return {"description": entries[0]["description"], "anyOf": entries}


def _offering(*ids: str) -> _Schema:
    """Offer what comes with fxeval, and accept any other id, as users have their own fixtures."""
    return {"anyOf": [{"enum": sorted(ids)}, {"type": "string", "pattern": NAME}]}


class _Generator(GenerateJsonSchema):
    """Explains fields by the docstrings of their forms; no key of a suite may be null."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Describe a form and its fields."""
        found = super().model_schema(schema)
        form = schema["cls"]
        summary = inspect.cleandoc(form.__doc__ or "").partition("\n\n")[0]
        found["description"] = _plain(summary)
        for base in reversed(form.__mro__):
            for name, text in _attributes(base).items():
                field: FieldInfo | None = form.model_fields.get(name)
                entry = found["properties"].get(field.alias or name) if field else None
                if entry is not None:
                    entry["description"] = text
        return found

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Leave null out: a key without a value is left out of a suite."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave out a default of None, which only says that the key is optional."""
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401
        """Leave out titles, which would only repeat the keys."""
        return False


def _attributes(form: type) -> Mapping[str, str]:
    """Return the texts about attributes in a class's own docstring."""
    text = inspect.cleandoc(form.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    return {name: _plain(words) for name, words in entries}


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "")


def _with_refs(schema: Any) -> Any:  # noqa: ANN401  (JSON)
    """Return the schema with a reference wherever the forms say that an id of a role stands."""
    if isinstance(schema, list):
        return [_with_refs(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(role := schema.get(ROLE), str):
        kept = {key: value for key, value in schema.items() if key == "description"}
        return {"$ref": f"#/$defs/{_REFS[role]}", **kept}
    return {key: _with_refs(value) for key, value in schema.items()}
