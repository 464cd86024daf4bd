"""`mux.files.placing`, `beneath`: a file gets its place, never another's, never by a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mux.files.beneath import open_file
from mux.files.placing import place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.part"
    file.write_bytes(b"hello")
    file.chmod(0o600)
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_it_lies_in_uploads_private_and_ignored(data: Path, root: Path) -> None:
    path = Path(place(data, "a.txt", str(root), "uploads"))
    assert path == root / "uploads" / "a.txt"
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (root / "uploads" / ".gitignore").read_text() == "*\n"


def test_done_again_after_a_kill_it_has_its_place_already(data: Path, root: Path) -> None:
    (root / "uploads").mkdir()
    (root / "uploads" / "a.txt").write_text("another's")
    place(data, "a.txt", str(root), "uploads")
    assert place(data, "a.txt", str(root), "uploads") == str(root / "uploads" / "a-2.txt")
    assert {each.name for each in (root / "uploads").iterdir()} == {
        ".gitignore", "a.txt", "a-2.txt",
    }  # fmt: skip


def test_nothing_is_replaced(data: Path, root: Path) -> None:
    (root / "uploads").mkdir()
    (root / "uploads" / "a.txt").write_text("mine")
    (root / "uploads" / ".gitignore").write_text("mine")
    (root / "uploads" / "a-2.txt").symlink_to("/etc/passwd")
    assert place(data, "a.txt", str(root), "uploads") == str(root / "uploads" / "a-3.txt")
    assert (root / "uploads" / "a.txt").read_text() == "mine"
    assert (root / "uploads" / ".gitignore").read_text() == "mine"


def test_a_link_in_the_way_is_refused(data: Path, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "uploads").symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        place(data, "a.txt", str(root), "uploads")
    assert list(elsewhere.iterdir()) == []
    assert data.exists()


def test_where_there_are_no_hard_links_it_is_copied_whole(
    data: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert Path(place(data, "a.txt", str(root), "uploads")).read_bytes() == b"hello"
    (root / "uploads" / f".{data.name}").write_text("of a broker that was killed meanwhile")
    assert place(data, "a.txt", str(root), "uploads").endswith("a-2.txt")
    assert {each.name for each in (root / "uploads").iterdir()} == {
        ".gitignore", "a.txt", "a-2.txt",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "", ".", "a/../../x"])
def test_no_way_out(root: Path, path: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 (which one depends on the path)
        os.close(open_file(str(root), path))


def test_only_regular_files_and_no_links_are_opened(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "b.txt").write_text("b")
    (root / "link").symlink_to(root / "a" / "b.txt")
    (root / "dir").symlink_to(root / "a")
    os.mkfifo(root / "pipe")
    with os.fdopen(open_file(str(root), "a/b.txt")) as file:
        assert file.read() == "b"
    for path in ("link", "dir/b.txt", "pipe", "a"):
        with pytest.raises(OSError):  # noqa: PT011
            os.close(open_file(str(root), path))
