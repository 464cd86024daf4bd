"""The installed codex's own JSON Schema, for tests: what is in it, and samples of it.

Hands to: the tests. Hears from: `codex app-server generate-json-schema`.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import jsonschema

from tests.end_to_end.native import codex_bin

Json: TypeAlias = dict[str, Any]

BUNDLE: Final = "codex_app_server_protocol.schemas.json"


@attrs.frozen
class Bundle:
    """All definitions of one codex, with or without what is experimental. ``text``: as written."""

    text: bytes

    @functools.cached_property
    def whole(self) -> Json:
        return json.loads(self.text)  # type: ignore[no-any-return]

    def params(self, kind: str) -> dict[str, Json]:
        """The schema of the params of each method of `ClientRequest`, `ServerNotification`, …"""
        return {
            each["properties"]["method"]["enum"][0]: each["properties"].get("params", NOTHING)
            for each in self.whole["definitions"][kind]["oneOf"]
        }

    def validate(self, name: str, value: object) -> None:
        """Raise `jsonschema.ValidationError` unless `value` is what a definition says."""
        schema = {"$ref": f"#/definitions/{name}", "definitions": self.whole["definitions"]}
        jsonschema.Draft7Validator(schema).validate(value)

    def types(self) -> dict[str, Json]:
        """All definitions by name; of one that has two, that of v2."""
        definitions = self.whole["definitions"]
        return definitions | definitions.get("v2", {})  # type: ignore[no-any-return]

    def resolved(self, schema: Any) -> Json:
        """The schema behind references; one that allows anything where that isn't defined."""
        while isinstance(schema, dict) and "$ref" in schema:
            found: Any = self.whole
            for name in schema["$ref"].split("/")[1:]:
                found = found.get(name, {})
            schema = found
        return schema if isinstance(schema, dict) else {}

    def sample(self, schema: Any) -> Any:
        """The smallest value that fits, and isn't null or empty where it needn't be."""
        whole = self.resolved(schema)
        for several in ("allOf", "oneOf", "anyOf"):
            if several in whole:
                return self.sample(next(e for e in whole[several] if e.get("type") != "null"))
        if "enum" in whole:
            return whole["enum"][0]
        kinds = whole.get("type", "object")
        kind = kinds if isinstance(kinds, str) else next(k for k in kinds if k != "null")
        if kind == "object":
            needed = {n: self.sample(whole["properties"][n]) for n in whole.get("required", ())}
            others = whole.get("additionalProperties")
            return needed or ({"k": self.sample(others)} if isinstance(others, dict) else {})
        if kind == "array":
            return [self.sample(whole["items"])] if isinstance(whole.get("items"), dict) else []
        # Any text may be a path that must be absolute; the schema doesn't say of all.
        return {"string": "/tmp/x", "integer": 1, "number": 1, "boolean": True}.get(kind)


NOTHING: Final[Json] = {"type": "null"}


@functools.cache
def bundle(*, experimental: bool) -> Bundle:
    """What the codex that the tests run with writes."""
    return generated(codex_bin(), experimental=experimental)


def generated(binary: Path, *, experimental: bool) -> Bundle:
    """What a codex writes."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--experimental"] if experimental else []
        command = [str(binary), "app-server", "generate-json-schema", "--out", out, *options]
        environ = os.environ | {"CODEX_HOME": os.devnull}
        subprocess.run(command, check=True, capture_output=True, env=environ)
        return Bundle((Path(out) / BUNDLE).read_bytes())
