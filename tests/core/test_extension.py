"""The extension is described whole: every `mux/*` name, and the schemas in `docs/schema/`.

That the broker does what is described is played in `tests/end_to_end/test_extension.py`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

import mux
from mux.core.extension import catalog
from mux.core.protocol import methods
from tests import extension_schemas

PACKAGE = Path(mux.__file__).parent
NAME = re.compile(r"mux/[A-Za-z/]+")


def named_in_the_code() -> Iterator[tuple[str, str]]:
    """Each text of the source that is a `mux/*` name, and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "core" / "extension"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and NAME.fullmatch(str(node.value)):
                yield str(node.value), path.name


def test_each_method_of_the_table_is_described() -> None:
    ours = {method for method in methods.REQUESTS if method.startswith("mux/")}
    missing, gone = ours - catalog.METHODS.keys(), catalog.METHODS.keys() - ours
    assert not missing, f"describe them in mux/core/extension: {sorted(missing)}"
    assert not gone, f"no request of the table is called so: {sorted(gone)}"


def test_each_name_in_the_code_is_described() -> None:
    known = catalog.METHODS.keys() | catalog.NOTIFICATIONS.keys()
    found = list(named_in_the_code())
    missing = {f"{name} ({file})" for name, file in found if name not in known}
    assert not missing, f"describe them in mux/core/extension: {sorted(missing)}"
    unsent = catalog.NOTIFICATIONS.keys() - {name for name, _ in found}
    assert not unsent, f"nothing sends them: {sorted(unsent)}"


def test_nothing_is_both() -> None:
    assert not catalog.METHODS.keys() & catalog.NOTIFICATIONS.keys()


def test_the_files_are_in_step() -> None:
    there = {
        path.name: path.read_text(encoding="utf-8")
        for path in extension_schemas.DIRECTORY.glob("*.json")
    }
    wanted = extension_schemas.files()
    odd = {name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)}
    assert not odd, f"`make schema` writes them: {sorted(odd)}"


@pytest.mark.parametrize("name", sorted(extension_schemas.EVERYTHING))
def test_an_example_is_what_its_schema_says(name: str) -> None:
    file = extension_schemas.DIRECTORY / f"{name.replace('/', '.')}.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    (example,) = schema["examples"]
    jsonschema.validate(example, schema, jsonschema.Draft202012Validator)
    for part, value in example.items():
        assert not extension_schemas.faults(name, part, value)


def test_a_field_that_no_class_names_is_a_fault() -> None:
    (wrong,) = extension_schemas.faults("mux/restart", "params", {"now": True, "later": 1})
    assert "later" in wrong
    (wrong,) = extension_schemas.faults("mux/restart", "params", {"now": "yes"})
    assert wrong.startswith("mux/restart params.now")
    assert extension_schemas.faults("mux/unheard/of", "params", {})
