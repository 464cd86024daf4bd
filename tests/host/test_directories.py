"""`mux.host.directories`: what a path is on this host, and whether the setting lists it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio

from mux.config.load import ConfigError, load
from mux.config.model import Config
from mux.core.commands import Resolve
from mux.core.events import Resolved
from mux.core.protocol.threads.directories import ResolvedPath, around, is_below
from mux.host import directories
from mux.host.directories import Directories, Listed, places


@pytest.mark.parametrize(
    ("entry", "path", "matches"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b/", "/a/b", True),
        ("/a/b", "/a/b/c", False),
        ("/a/b", "/a", False),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a", False),
        ("/a/*", "/a/b/c", False),
        ("/a/*/c", "/a/b/c", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/ab", False),
        ("/a/**/c", "/a/c", True),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a/**/c", "/a/b/bc", False),
        ("/a/b?", "/a/bc", True),
        ("/a/b?", "/a/b/", False),
        ("/a/b[xy]", "/a/by", True),
        ("/a/b[!xy]", "/a/by", False),
        ("/a/b[!xy]z", "/a/b/z", False),
        ("/a/b.*", "/a/bx", False),
        ("/a/b.*", "/a/b.x", True),
        ("/a/(b|c)", "/a/b", False),
        ("/a/*", "/a/x\ny", True),
        ("/", "/", True),
        ("/*", "/", False),
        ("/*", "/a", True),
        ("/**", "/", True),
        ("/**", "/a/b", True),
    ],
)
def test_an_entry_of_the_setting(entry: str, path: str, matches: bool) -> None:
    assert Listed.read(entry).matches(path) is matches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory `real` with another in it, and links: to it, to nothing, around."""
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path.resolve()


def test_a_path_is_what_it_leads_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    asked = {
        "": "real",
        "in": "real/in",
        ".": "real",
        "../link/in": "real/in",
        "~": ".",
        "~/link": "real",
        f"{root}/link": "real",
        f"{root}/link/../real/./in//": "real/in",
        f"{root}/dangling/x": "nothing/x",
        f"{root}/new/../real": "real",
    }
    found = places(list(asked), (), str(root / "real"))
    paths = [place.path if place else None for place in found]
    assert paths == [os.path.normpath(root / each) for each in asked.values()]


def test_what_is_no_path_is_none(root: Path) -> None:
    odd = ("/a\0b", "~nobody-of-this-name/x", str(root / "\udcff"))
    assert places(odd, (), str(root)) == (None, None, None)


def test_what_is_listed_and_what_is_within(root: Path) -> None:
    asked = [str(root / each) for each in ("real", "real/in", "link", "link/in", "other", ".")]
    for entry in ("real", "link"):
        found = places(asked, (str(root / entry),), "/")
        seen = [(each.listed, each.within) for each in found if each]
        listed, within, not_at_all = (True, True), (False, True), (False, False)
        assert seen == [listed, within, listed, within, not_at_all, not_at_all]


def test_what_is_around_and_below() -> None:
    assert around("/a/b") == ["/a/b", "/a", "/"]
    assert around("/") == ["/"]
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/")
    assert not is_below("/ab", "/a")


async def test_a_disk_that_hangs_is_given_up_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs = threading.Event()
    real = directories.places

    def look(paths: tuple[str, ...], listed: tuple[str, ...], own: str) -> object:
        if "/hangs" in paths:
            hangs.wait()
        return real(paths, listed, own)

    send, receive = trio.open_memory_channel[Resolved](2)
    monkeypatch.setattr(directories, "places", look)
    monkeypatch.setattr(directories, "DEADLINE", 2.0)
    looking = Directories((), "/", send.send_nowait)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(looking.run)
            looking.resolve(Resolve(1, ("/hangs",)))
            looking.resolve(Resolve(2, ("/",)))
            assert await receive.receive() == Resolved(2, (ResolvedPath("/"),))
            assert await receive.receive() == Resolved(1, (None,))
            nursery.cancel_scope.cancel()
    finally:
        hangs.set()


def test_the_setting() -> None:
    assert Config().devices.directories == ()
    environ = {"APPMUX_DEVICES_DIRECTORIES": "~/projects/*, /srv/app"}
    assert load({}, environ).config.devices.directories == ("~/projects/*", "/srv/app")
    with pytest.raises(ConfigError, match="absolute paths or globs"):
        load({}, {"APPMUX_DEVICES_DIRECTORIES": "projects/*"})
