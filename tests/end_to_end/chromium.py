"""A real Chromium on a test bench: Debian's, driven by Playwright, with a profile of its own.

Playwright's own loop is asyncio's, so its synchronous half runs in a thread of its own: a test says
what the browser does as a function of a context, and awaits it by `in_chromium`.

Hands to: the tests. Hears from: `chromium`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import pytest
import trio

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PATIENCE: Final = 60_000.0
"""Milliseconds that a page is waited for; where 18 programs want two cores one is up after 20 s."""

T = TypeVar("T")


def chromium() -> str:
    """The path of the Chromium that is installed; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium isn't installed: `apt install chromium`")
    return found


async def in_chromium(
    story: Callable[[BrowserContext], T],
    *arguments: str,
    profile: str | None = None,
    extensions: bool = False,
) -> T:
    """Run a story in a browser with a profile that is gone afterwards, or with `profile`.

    `extensions`: those that `arguments` name are loaded.
    """
    path = chromium()
    return await trio.to_thread.run_sync(
        partial(_played, path, story, arguments, profile, extensions=extensions)
    )


def _played(
    path: str,
    story: Callable[[BrowserContext], T],
    arguments: Sequence[str],
    profile: str | None,
    *,
    extensions: bool,
) -> T:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (a second; few tests need it)

    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as own, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile or own,
            executable_path=path,
            headless=True,
            ignore_default_args=["--disable-extensions"] if extensions else None,
            args=[*sandbox, "--disable-gpu", "--disable-dev-shm-usage", *arguments],
        )
        context.set_default_timeout(PATIENCE)
        try:
            return story(context)
        finally:
            context.close()


def shown(page: Page, text: str) -> str:
    """Wait until the smallest page shows a line with `text`; all that it shows."""
    log = page.locator("#log")
    log.filter(has_text=text).wait_for()
    return log.inner_text()
