"""What is kept of codex's schema in the state directory, and what may be wrong with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mux.core.protocol.experimental import Gate
from mux.upstream import schema as codex_schema

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


def test_what_a_kill_left_is_removed_at_the_next_start(tmp_path: Path, generated: Path) -> None:
    keep(tmp_path, generated)
    directory = tmp_path / codex_schema.DIRECTORY
    just_begun, abandoned = directory / "1+x.new-a", directory / "1+x.new-b"
    for each in (tmp_path / "codex-schema.new-c" / "ts", just_begun, abandoned):
        each.mkdir(parents=True)
    os.utime(abandoned, (1, 1))
    codex_schema._tidy(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"out", codex_schema.DIRECTORY}
    assert {each.name for each in directory.iterdir()} == {f"1.2.3+{WHICH}", just_begun.name}
    codex_schema._tidy(tmp_path / "nowhere")


async def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by a kill in the middle: it is in the state directory that it happens."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", None)
    seen: list[str] = []

    def write(out: Path) -> None:
        seen.append(str(out.parent.parent))
        out.mkdir()
        (out / codex_schema.BUNDLE).write_text("{}")

    async def generate(_binary: Path, _what: str, out: Path, *_options: str) -> None:
        write(out)

    async def version(_binary: Path) -> str:
        return "1.2.3"

    monkeypatch.setattr(codex_schema, "_generate", generate)
    monkeypatch.setattr(codex_schema, "codex_version", version)
    monkeypatch.setattr(codex_schema, "_make", lambda _version, _place: GATE)
    schema = codex_schema.CodexSchema(tmp_path / "codex", tmp_path, lambda _gate: None)
    assert await schema._find(WHICH) == GATE
    assert set(seen) == {str(tmp_path)}
    assert os.listdir(tmp_path) == [codex_schema.DIRECTORY]  # noqa: PTH208
