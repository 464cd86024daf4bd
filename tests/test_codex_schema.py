"""What is kept of codex's schema in the state directory, and what may be wrong with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mux import codex_schema
from mux.core.experimental import Gate

GATE = Gate("1.2.3", frozenset({"process/spawn"}), {"a/b": ["x"]}, {"a/b": {}}, {})
WHICH = "ab-12-cd"

SOURCE = """
// a line, with {braces}: and a colon
export type StartParams = { model?: string | null, /**
 * Not this: {neither} this.
 */
config?: { [key in string]?: JsonValue } | null, inner?: { a: { b: string } }, last: boolean, };
"""


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """What the binary wrote."""
    for name in ("stable", "all"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / codex_schema.BUNDLE).write_text(f'"{name}"')
    return tmp_path / "out"


def keep(state: Path, generated: Path, which: str = WHICH) -> None:
    codex_schema._keep(state, which, generated, GATE)


def test_fields_are_told_as_declared() -> None:
    assert codex_schema.declared(SOURCE) == ["model", "config", "inner", "last"]
    assert codex_schema.declared("export type X = string;") == []
    assert codex_schema.declared("") == []


def test_what_is_kept_is_found_again(tmp_path: Path, generated: Path) -> None:
    assert codex_schema._read_kept(tmp_path, WHICH) is None
    keep(tmp_path, generated)
    keep(tmp_path, generated)  # once more, over it
    assert codex_schema._read_kept(tmp_path, WHICH) == GATE
    assert codex_schema._read_kept(tmp_path, "of another binary") is None
    (made,) = (tmp_path / codex_schema.DIRECTORY).iterdir()
    assert made.name == f"1.2.3+{WHICH}"
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / codex_schema.EXPERIMENTAL).read_text() == '"all"'


def test_what_another_is_just_making_is_left_alone(
    tmp_path: Path, generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that share a state directory: each keeps what it made, whole."""
    copy, began = shutil.copyfile, False

    def copy_while_another_keeps(source: Path, target: Path) -> None:
        nonlocal began
        copy(source, target)
        if not began:
            began = True
            keep(tmp_path, generated)

    monkeypatch.setattr(shutil, "copyfile", copy_while_another_keeps)
    with capture_logs() as logs:
        keep(tmp_path, generated)
    assert logs == []
    (made,) = (tmp_path / codex_schema.DIRECTORY).iterdir()
    whole = {codex_schema.STABLE, codex_schema.EXPERIMENTAL, codex_schema.GATE}
    assert {each.name for each in made.iterdir()} == whole


@pytest.mark.parametrize("spoilt", [b"", b"{}", b"no json", b'{"version": 5}'])
def test_what_is_spoilt_is_as_if_it_weren_t_there(
    tmp_path: Path, generated: Path, spoilt: bytes
) -> None:
    keep(tmp_path, generated)
    (gate,) = (tmp_path / codex_schema.DIRECTORY).glob("*/gate.json")
    gate.write_bytes(spoilt)
    assert codex_schema._read_kept(tmp_path, WHICH) is None
    keep(tmp_path, generated)
    assert codex_schema._read_kept(tmp_path, WHICH) == GATE


def test_old_ones_are_forgotten(tmp_path: Path, generated: Path) -> None:
    directory = tmp_path / codex_schema.DIRECTORY
    for number in range(codex_schema.KEPT + 2):
        keep(tmp_path, generated, f"{number}")
        os.utime(directory / f"1.2.3+{number}", (number, number))
    assert codex_schema._read_kept(tmp_path, "2") is not None  # used again, so not the oldest
    keep(tmp_path, generated, "new")
    left = {each.name.partition("+")[2] for each in directory.iterdir()}
    assert left == {"2", "4", "5", "new"}


def test_without_disk_nothing_is_kept_and_nothing_fails(tmp_path: Path, generated: Path) -> None:
    (tmp_path / codex_schema.DIRECTORY).write_text("a file is in the way")
    keep(tmp_path, generated)
    assert codex_schema._read_kept(tmp_path, WHICH) is None


async def test_a_binary_that_is_gone_teaches_nothing(tmp_path: Path) -> None:
    assert codex_schema.identity_text(tmp_path / "gone") is None
