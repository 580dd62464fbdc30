"""The keys of a record, and their JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from fewshot_bench.results.record.model import SCHEMA_VERSION, Record

TYPES = {"string": "text", "array": "list"}
START = """# Keys of record.json

Schema version {version}; [record.schema.json](record.schema.json) has the same as JSON schema.
[The record of a run](../record.md) explains what the keys are for.

| key | type | meaning |
|---|---|---|
"""


def schema() -> str:
    """The JSON schema of a record."""
    return json.dumps(msgspec.json.schema(Record), indent=2) + "\n"


def page() -> str:
    """A row for each key, with the keys of an object below it."""
    structs = msgspec.json.schema(Record)["$defs"]
    rows = _rows("", structs.pop("Record"), structs)
    lines = [f"| `{key}` | {kind} | {meaning} |\n" for key, kind, meaning in rows]
    return START.format(version=SCHEMA_VERSION) + "".join(lines)


def _rows(
    prefix: str, struct: dict[str, Any], structs: dict[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Key, type and meaning of each field; a struct is described where it comes first."""
    for name, value in struct["properties"].items():
        choices = value.get("anyOf", [value])
        inner, suffix = next(filter(None, (_struct(one, structs) for one in choices)), ({}, ""))
        meaning = value.get("description") or inner.get("description", "")
        kinds = ["object" if "$ref" in one else one.get("type", "text") for one in choices]
        yield prefix + name, " or ".join(TYPES.get(kind, kind) for kind in kinds), meaning
        if inner:
            yield from _rows(f"{prefix}{name}{suffix}.", inner, structs)


def _struct(value: dict[str, Any], structs: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The struct of a value, of a list's items or of an object's values, if not yet described."""
    places = {"": value, "[]": value.get("items"), ".*": value.get("additionalProperties")}
    for suffix, place in places.items():
        if isinstance(place, dict) and "$ref" in place:
            found = structs.pop(place["$ref"].rpartition("/")[2], None)
            return found and (found, suffix)
    return None
