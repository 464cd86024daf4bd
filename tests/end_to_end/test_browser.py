"""A real Chromium is let in: the smallest page (`docs/page`) on a real broker."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from playwright.sync_api import BrowserContext, Page

from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import origin_of
from tests.end_to_end.chromium import in_chromium, shown
from tests.end_to_end.devices import DEVICES_ONLY, operator_of
from tests.end_to_end.native import private_home
from tests.end_to_end.peer import Peer
from tests.ports import kept_port

PAGE: Final = Path(__file__).parents[2] / "docs" / "page"
OWN_PAGE: Final = {"APPMUX_WEB_FILES": str(PAGE)}


def pairing(operator: Peer) -> Callable[[], str]:
    """A function for a browser's thread: begins a pairing, and gives its ticket."""

    async def begin() -> str:
        asked = {"scopes": ["observe"]}
        return str((await operator.request("mux/pairing/begin", asked))["ticket"])

    return lambda: trio.from_thread.run(begin)


@asynccontextmanager
async def saying_yes(operator: Peer) -> AsyncIterator[list[str]]:
    """An operator who says yes to each browser that comes; the codes that they have to show."""
    codes: list[str] = []

    async def watch() -> None:
        since = 0
        while True:
            asked = await operator.wait_method("mux/pairing/asked", since=since, timeout=math.inf)
            since = operator.inbox.index(asked) + 1
            codes.append(asked["params"]["code"])
            answer = {"id": asked["params"]["id"], "accept": True}
            await operator.request("mux/pairing/confirm", answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield codes
        nursery.cancel_scope.cancel()


def let_in(context: BrowserContext, at: str, ticket: str) -> Page:
    """A tab that was paired by a link, and is attached."""
    page = context.new_page()
    page.goto(f"{at}/#pair={ticket}")
    shown(page, "attached to appmux/")
    return page


async def test_the_smallest_page_is_paired_by_a_link_and_attaches() -> None:
    async with (
        brokered(environ=OWN_PAGE) as broker,
        operator_of(broker) as operator,
        saying_yes(operator) as codes,
    ):
        ticket = pairing(operator)

        def story(context: BrowserContext) -> tuple[str, str, str]:
            link = ticket()
            page = let_in(context, origin_of(broker), link)
            second = context.new_page()
            second.goto(origin_of(broker))  # with the key that is there
            return link, shown(page, "attached"), shown(second, "attached")

        link, text, again = await in_chromium(story)
        assert re.findall(r"code (\d{3} \d{3})", text) == codes
        assert "let in: a browser on" in text
        assert "code" not in again
        (device,) = (await operator.request("mux/devices/list"))["devices"]
        assert (device["name"], device["proof"]) == ("a browser", "key")
        assert device["scopes"] == ["observe"]
        written = [path.read_bytes() for path in broker.home.root.rglob("*") if path.is_file()]
        assert not any(link.encode() in each for each in written)
        assert link not in broker.shown()


async def test_the_smallest_page_is_paired_by_letters() -> None:
    async with (
        brokered(*DEVICES_ONLY, environ=OWN_PAGE) as broker,
        operator_of(broker) as operator,
        saying_yes(operator) as codes,
    ):
        asked = {"scopes": ["observe"], "letters": True}
        letters = (await operator.request("mux/pairing/begin", asked))["letters"]

        def story(context: BrowserContext) -> str:
            page = context.new_page()
            page.goto(origin_of(broker))
            shown(page, "not paired")
            page.fill("#letters", f"{letters[:4].lower()} {letters[4:]}")
            page.press("#letters", "Enter")
            return shown(page, "attached to appmux/")

        text = await in_chromium(story)
        assert re.findall(r"code (\d{3} \d{3})", text) == codes
        assert letters not in broker.shown()


async def test_a_browser_is_cut_when_it_is_revoked() -> None:
    async with (
        brokered(*DEVICES_ONLY, environ=OWN_PAGE) as broker,
        operator_of(broker) as operator,
        saying_yes(operator),
    ):
        ticket = pairing(operator)

        def story(context: BrowserContext) -> tuple[str, str]:
            page = let_in(context, origin_of(broker), ticket())
            trio.from_thread.run(operator.request, "mux/devices/revoke", {"name": "a browser"})
            cut = shown(page, "closed 4401")
            page.reload()
            return cut, shown(page, "closed 4401")

        cut, after = await in_chromium(story)
        assert "this device was revoked" in cut
        assert "let in" not in after


async def test_signing_out_leaves_nothing_behind() -> None:
    async with (
        brokered(environ=OWN_PAGE) as broker,
        operator_of(broker) as operator,
        saying_yes(operator),
    ):
        ticket = pairing(operator)

        def story(context: BrowserContext) -> tuple[Any, ...]:
            page = let_in(context, origin_of(broker), ticket())
            page.click("#out")
            shown(page, "signed out")
            shown(page, "closed 4401")
            left = page.evaluate(
                "async () => [(await indexedDB.databases()).length, (await caches.keys()).length,"
                " localStorage.length, document.cookie]"
            )
            page.reload()
            shown(page, "not paired")
            return (*left, len(context.cookies()))

        assert await in_chromium(story) == (0, 0, 0, "", 0)
        assert (await operator.request("mux/devices/list"))["devices"] == []


async def test_a_browser_survives_a_restart_of_the_broker(tmp_path: Path) -> None:
    with kept_port() as port, private_home("http://127.0.0.1:9") as home:
        listen = ("--listen", f"ws://127.0.0.1:{port}")
        profile, at = str(tmp_path / "profile"), f"http://127.0.0.1:{port}"
        async with (
            brokered(*listen, environ=OWN_PAGE, home=home) as broker,
            operator_of(broker) as operator,
            saying_yes(operator),
        ):
            ticket = pairing(operator)
            await in_chromium(lambda context: let_in(context, at, ticket()).url, profile=profile)
        async with brokered(*listen, environ=OWN_PAGE, home=home):

            def later(context: BrowserContext) -> str:
                page = context.new_page()
                page.goto(at)
                return shown(page, "attached to appmux/")

            assert "code" not in await in_chromium(later, profile=profile)


async def test_two_devices_in_one_profile() -> None:
    """By two ports, and by two names: each has a key of its own, and sees nothing of the other."""
    names = ("one.test", "two.test")
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in names)
    with kept_port() as port:
        pages = [f"http://{name}:{port}" for name in names]
        settings = OWN_PAGE | {"APPMUX_WEB_ORIGINS": ",".join(pages)}
        async with (
            brokered("--listen", f"ws://127.0.0.1:{port}", environ=settings) as broker,
            operator_of(broker) as operator,
            saying_yes(operator),
        ):
            ticket = pairing(operator)

            def story(context: BrowserContext) -> list[str]:
                at = [*pages, f"http://127.0.0.1:{port}", origin_of(broker)]
                tabs = [let_in(context, each, ticket()) for each in at]
                return [shown(tab, "attached") for tab in tabs]

            texts = await in_chromium(
                story,
                f"--host-resolver-rules={rules}",
                f"--unsafely-treat-insecure-origin-as-secure={','.join(pages)}",
            )
            assert len({re.findall(r"code (.*)", text)[0] for text in texts}) == 4
            devices = (await operator.request("mux/devices/list"))["devices"]
            assert len(devices) == 4


async def test_the_page_says_how_it_is_built_where_it_is_not(tmp_path: Path) -> None:
    async with brokered(environ={"APPMUX_WEB_FILES": str(tmp_path)}) as broker:

        def story(context: BrowserContext) -> tuple[str, list[str]]:
            page, said = context.new_page(), []
            page.on("console", lambda message: said.append(message.text))
            page.goto(f"{origin_of(broker)}/t/any/thread")
            return page.inner_text("body"), said

        text, said = await in_chromium(story)
        assert "Its page isn't built" in text
        assert not said
