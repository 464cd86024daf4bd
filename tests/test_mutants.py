"""The table of `tests.mutants`: it names what is there."""

from __future__ import annotations

import pytest

from tests.mutants import COPIED, GUARDED, ROOT


@pytest.mark.parametrize("module", GUARDED)
def test_each_module_and_each_of_its_tests_is_there(module: str) -> None:
    assert (ROOT / "mux" / (module.replace(".", "/") + ".py")).is_file()
    assert [test for test in GUARDED[module] if not (ROOT / test).is_file()] == []


def test_what_is_copied_is_there() -> None:
    assert all((ROOT / name).exists() for name in COPIED)
