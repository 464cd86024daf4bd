"""Tests stand where their subject does: ``tests/`` has the folders of ``mux/``, and a few more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.end_to_end import killed_at

TESTS: Final = Path(__file__).parent
SOURCE: Final = TESTS.parent / "mux"

OWN: Final = {
    "clients", "conformance", "container", "end_to_end", "fuzz", "last_version", "newest", "page",
    "soak", "tus",
}  # fmt: skip
"""Folders of tests that play with whole programs, and of what these need."""

STORIES: Final = {"cli/test_errors.py", "core/test_coalescing.py", "core/test_planned_restart.py"}
"""Stories across modules that have the name of one of them."""


def test_each_folder_has_its_source() -> None:
    folders = {each.parent.relative_to(TESTS) for each in TESTS.rglob("test_*.py")}
    mirrored = [each for each in folders if not each.parts or each.parts[0] not in OWN]
    assert not [str(each) for each in mirrored if not (SOURCE / each).is_dir()]


def test_a_test_called_after_a_module_stands_beside_it() -> None:
    modules: dict[str, set[Path]] = {}
    for file in SOURCE.rglob("*.py"):
        modules.setdefault(file.stem, set()).add(file.parent.relative_to(SOURCE))
    misplaced = []
    for test in TESTS.rglob("test_*.py"):
        where = test.relative_to(TESTS)
        places = modules.get(test.stem.removeprefix("test_"))
        if where.parts[0] in OWN or str(where) in STORIES or places is None:
            continue
        if where.parent not in places:
            misplaced.append(f"{where}: its module is in {', '.join(map(str, places))}")
    assert not misplaced


def test_functions_that_tests_name_by_text_are_there() -> None:
    """What is renamed is noticed at once, and not by a broker that is killed nowhere."""
    for point in killed_at.POINTS:
        killed_at.holder_of(point)
