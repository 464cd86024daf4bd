"""The commands that let a browser in: `pair`, `invite`, `open`, `devices revoke --all`.

The browser is `browsers.Browser`, without the browser; `test_browser` has a real one.
"""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pyte
import pytest
import trio
import zxingcpp

from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import Browser, origin_of
from tests.end_to_end.devices import (
    DEVICES_ONLY,
    Terminal,
    appmux,
    closed,
    listed,
    operator_of,
    piped,
    terminal,
)
from tests.end_to_end.native import Native
from tests.end_to_end.scenes import eventually

LINK = r"(http://\S+)/#pair=(\S+)"
SIZES = ((80, 24), (80, 40))


def seen(shown: str, columns: int, lines: int) -> list[str]:
    """What a window of this size shows at the end."""
    screen = pyte.Screen(columns, lines)
    pyte.Stream(screen).feed(shown.replace("\n", "\r\n"))
    return list(screen.display)


def decoded(lines: list[str]) -> str:
    """The text of the QR code among a window's lines, as a camera reads them."""
    white = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    drawn = [line for line in lines if set(line) & set("▀▄█")]
    if not drawn:
        return ""
    rows = [
        [white.get(letter, (0, 0))[half] * 255 for letter in line]
        for line in drawn
        for half in (0, 1)
    ]
    picture = np.kron(np.array(rows, dtype=np.uint8), np.ones((6, 6), dtype=np.uint8))
    return "".join(found.text for found in zxingcpp.read_barcodes(picture))


@asynccontextmanager
async def paired(broker: Native, shown: Terminal) -> AsyncIterator[Browser]:
    """A browser that has opened the link, with the operator's yes."""
    found = await shown.see(LINK)
    browser = Browser(found[1])
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            status, told = await browser.redeem(ticket=found[2])
            assert status == 200, told
            browser.device = told["device"]

        nursery.start_soon(ask)
        await shown.see(r"\[y/N\]")
        await shown.type("y\n")
    await shown.see('paired "a browser"')
    yield browser


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_camera_reads_the_link_in_a_window_of(size: tuple[int, int]) -> None:
    async with brokered() as broker, terminal(broker, "pair", size=size) as shown:
        link = (await shown.see(LINK))[0]
        assert link.startswith(origin_of(broker))
        await shown.see("opens in this machine's browsers alone")
        await shown.until(lambda text: decoded(seen(text, *size)) == link)


async def test_a_window_that_is_too_small_is_told() -> None:
    async with brokered() as broker, terminal(broker, "pair", size=(80, 12)) as shown:
        await shown.see(r"No QR code: it needs a window of \d+ × \d+,")
        await shown.see("this one is 80 × 12")
        assert "▀" not in shown.shown


async def test_a_picture_of_the_link_for_ones_eyes_only(tmp_path: Path) -> None:
    from PIL import Image  # noqa: PLC0415 (matplotlib's)

    picture = tmp_path / "code.png"
    async with brokered() as broker, terminal(broker, "pair", "--png", str(picture)) as shown:
        link = (await shown.see(LINK))[0]
        await shown.see("The QR code is in")
        assert stat.S_IMODE(picture.stat().st_mode) == 0o600
        (found,) = zxingcpp.read_barcodes(Image.open(picture))
        assert found.text == link


async def test_a_browser_is_paired_by_the_link_and_is_in() -> None:
    async with (
        brokered(*DEVICES_ONLY) as broker,
        terminal(broker, "pair", "--expires", "30d") as shown,
        paired(broker, shown) as browser,
        browser.connect() as peer,
    ):
        assert await shown.end() == 0
        assert peer.hello["scopes"] == ["approve", "drive", "observe"]
        token = peer.hello["token"]["token"]
        await peer.initialize("page")
        (device,) = (await peer.request("mux/presence/read"))["clients"][:1]
        assert device["name"] == "page"
        for text in (shown.shown, broker.shown()):
            assert token not in text


async def test_a_browser_is_paired_by_letters() -> None:
    async with brokered() as broker, terminal(broker, "pair") as shown:
        letters = await shown.see(r"type ([A-Z2-9]{4}) ([A-Z2-9]{4}) in")
        browser = Browser(origin_of(broker))
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                typed = f"{letters[1].lower()}-{letters[2]} "
                assert (await browser.redeem(letters=typed))[0] == 200

            nursery.start_soon(ask)
            await shown.see(r"\[y/N\]")
            await shown.type("y\n")
        assert await shown.end() == 0
        assert letters[1] + letters[2] not in broker.shown()


async def test_an_invitation_is_a_link_alone_where_it_is_asked_for() -> None:
    async with (
        brokered(*DEVICES_ONLY) as broker,
        piped(broker, "invite", "--url", "--yes") as shown,
    ):
        found = await shown.see(LINK)
        status, told = await Browser(found[1]).redeem(ticket=found[2])
        assert (status, told["scopes"]) == (200, ["observe"])
        assert await shown.end() == 0
        assert shown.shown.splitlines()[0] == found[0]


async def test_open_lets_this_machines_browser_in_without_a_look() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        first = Browser(origin_of(broker))
        async with piped(broker, "open", "--print") as shown:
            ticket = (await shown.see(LINK))[2]
            status, told = await first.redeem(ticket=ticket)
            first.device = told["device"]
            assert status == 200
            assert await shown.end() == 0
        async with first.connect() as peer:
            assert peer.hello["scopes"] == ["approve", "drive", "observe"]
            # Another browser takes its place: there is one such device.
            second = Browser(origin_of(broker))
            async with piped(broker, "open", "--print", "--scope", "observe") as shown:
                ticket = (await shown.see(LINK))[2]
                assert (await second.redeem(ticket=ticket))[0] == 200
                assert await shown.end() == 0
            await peer.wait_gone()
            assert closed(peer)[0] == 4401
        (name,) = listed(await operator.request("mux/devices/list"))
        assert name == "browser on this machine"


async def test_open_starts_a_browser_at_a_file_of_ones_own(tmp_path: Path) -> None:
    """The link is on nobody's command line."""
    copy = tmp_path / "copy"
    fake = tmp_path / "browser"
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys, urllib.parse, urllib.request\n"
        "path = urllib.request.url2pathname(urllib.parse.urlsplit(sys.argv[1]).path)\n"
        f"text = f'{{os.stat(path).st_mode & 0o777:o}} {{sys.argv[1]}} {{open(path).read()}}'\n"
        f"open({str(copy)!r} + '.new', 'w').write(text)\n"
        f"os.rename({str(copy)!r} + '.new', {str(copy)!r})\n"
    )
    fake.chmod(0o755)
    async with brokered(*DEVICES_ONLY) as broker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BROWSER", f"{fake} %s")
            async with piped(broker, "open") as shown:
                await eventually(copy.exists, "the browser was started")
                mode, url, page = copy.read_text().split(" ", 2)
                found = re.search(LINK.replace(r"\S+)", r'[^"]+)'), page)
                assert found is not None
                assert (mode, found[2] in url) == ("600", False)
                browser = Browser(found[1])
                assert (await browser.redeem(ticket=found[2]))[0] == 200
                assert await shown.end() == 0
                assert found[2] not in shown.shown
        assert not list(broker.home.root.rglob("open-*.html"))


async def test_all_devices_are_revoked_but_one() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        for name in ("phone", "Laptop", "wall"):
            await operator.request("mux/devices/add", {"name": name, "scopes": ["observe"]})
        wrong = await appmux(broker, "devices", "revoke", "--all", "--except", "lap")
        assert (wrong.returncode, "nothing was revoked" in wrong.stderr) == (1, True)
        for arguments in ((), ("phone", "--all"), ("phone", "--except", "wall")):
            refused = await appmux(broker, "devices", "revoke", *arguments)
            assert refused.returncode == 2, refused
        assert len(listed(await operator.request("mux/devices/list"))) == 3
        done = await appmux(broker, "devices", "revoke", "--all", "--except", "laptop")
        assert done.returncode == 0, done.stderr
        assert listed(await operator.request("mux/devices/list")).keys() == {"Laptop"}
        again = await appmux(broker, "devices", "revoke", "--all", "--except", "laptop")
        assert (again.returncode, again.stdout) == (0, "there is no device to revoke\n")
