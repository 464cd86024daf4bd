"""The JSON Schemas of the extension: `python -m tests.extension_schemas` writes `docs/schema/`.

Hands to: `docs/schema/`, the tests that keep it in step and play the examples.
Hears from: `mux.core.extension`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from jsonschema import Draft202012Validator

from mux.core.extension import catalog
from mux.core.extension.parts import Described

Json: TypeAlias = dict[str, Any]

DIRECTORY: Final = Path(__file__).parent.parent / "docs" / "schema"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

EVERYTHING: Final = catalog.METHODS | catalog.NOTIFICATIONS | catalog.SHAPES


def files() -> dict[str, str]:
    """What stands in `docs/schema/`, by file name."""
    return {
        f"{name.replace('/', '.')}.json": json.dumps(schema(name, each), indent=2) + "\n"
        for name, each in EVERYTHING.items()
    }


def schema(name: str, described: Described) -> Json:
    """The schema of one thing: an object with each of its parts, and the example."""
    kinds = [type(part) for part in described.parts.values()]
    parts, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for each in components.values():
        each["description"] = inspect.cleandoc(each["description"]).replace("``", "`")
    return {
        "$schema": DIALECT,
        "title": name,
        "description": described.about,
        "type": "object",
        "properties": dict(zip(described.parts, parts, strict=True)),
        "examples": [example(described)],
        "$defs": components,
    }


def example(described: Described) -> Json:
    """The example of each part, as JSON."""
    parts = described.parts.items()
    return {name: json.loads(msgspec.json.encode(part)) for name, part in parts}


def faults(name: str, part: str, value: Any) -> list[str]:
    """Why `value` isn't that part of `name`, each with its place; nothing if it is.

    Stricter than the schema that others get: a field that no class names is a fault too.
    """
    described = EVERYTHING.get(name)
    if described is None or part not in described.parts:
        return [f"`{name}` has no {part} in mux/core/extension"]
    whole = _closed(schema(name, described))
    wanted = {**whole["properties"][part], "$defs": whole["$defs"]}
    found = Draft202012Validator(wanted).iter_errors(value)
    return [f"{name} {part}{each.json_path[1:]}: {each.message}" for each in found]


def _closed(part: Any) -> Any:
    match part:
        case dict():
            closed = {name: _closed(value) for name, value in part.items()}
            # A map of anything (`dict[str, Any]`) has no fields, and stays open.
            if "properties" in part and "additionalProperties" not in part:
                closed["additionalProperties"] = False
            return closed
        case list():
            return [_closed(each) for each in part]
        case _:
            return part


def write(directory: Path, say: Callable[[str], object]) -> None:
    """Put the files there, and take away what nothing describes any more."""
    directory.mkdir(exist_ok=True)
    wanted = files()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")
    for path in directory.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    say(f"{len(wanted)} schemas in {directory}")


if __name__ == "__main__":
    write(DIRECTORY, print)
