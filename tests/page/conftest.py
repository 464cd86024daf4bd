"""What the page's tests share: one browser a module, one runtime a module, a page for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.end_to_end.chromium import PATIENCE, chromium
from tests.page.node import WEB
from tests.page.runtime import Runtime, runtime

PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}
DESK: Final[dict[str, Any]] = {"viewport": {"width": 1280, "height": 800}}

Opener = Callable[..., Page]

# Its own is 5 s, whatever a context's default is.
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def built() -> None:
    """The page is built."""
    if not (WEB.parent / "mux" / "web" / "static" / "index.html").is_file():
        pytest.skip("the page isn't built: run `make page` where npm is reached")


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Browser]:
    """A Chromium."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=chromium(),
            args=[*sandbox, "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def host(built: None) -> Iterator[Runtime]:
    """A running broker."""
    with runtime() as made:
        yield made


@pytest.fixture
def opened(browser: Browser, host: Runtime) -> Iterator[Opener]:
    """A function that pairs a browser of its own and returns its page, at the inbox.

    A test fails at its end if one of its pages threw, or broke the page's own policy (CSP).
    """
    faults: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            faults.append(message.text)

    def make(*scopes: str, at: Runtime | None = None, path: str = "/", **options: Any) -> Page:
        place = at or host
        context = browser.new_context(**(PHONE | options))
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", hear)
        page.goto(f"{place.origin}/#pair={place.ticket(*scopes)}")
        page.get_by_role("button", name="Pair", exact=True).click()
        page.locator(".state-live").first.wait_for()
        if path != "/":
            go(page, path)
        return page

    yield make
    for context in contexts:
        context.close()
    assert faults == []


def go(page: Page, path: str) -> None:
    """Go somewhere within the page, as a link does, and without loading it anew."""
    page.evaluate(
        """path => {
            history.pushState(null, '', path);
            dispatchEvent(new PopStateEvent('popstate'));
        }""",
        path,
    )


def press(page: Page, name: str) -> None:
    """Press an answer button, once it has stood still for long enough to count."""
    button = page.locator(".answers").get_by_role("button", name=name, exact=True)
    button.wait_for()
    page.locator(".answers .settling").first.wait_for(state="detached")
    button.click(delay=30)
