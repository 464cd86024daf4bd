"""Takes the pictures of README and docs/page.md: `python -m tests.page.pictures`.

A real broker and app-server with the scripted model, a real Chromium, at the sizes of a phone and a
laptop. They go to docs/page-*.png, side by side where two stand together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from tests.end_to_end.chromium import chromium
from tests.page.conftest import DESK, PHONE, go
from tests.page.runtime import Runtime, runtime
from tests.page.scenes import script
from tests.page.seeds import seed

DOCS: Final = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Take them all."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    words = Path(tempfile.gettempdir()) / "words"
    words.mkdir()
    try:
        _take(words, sandbox)
    finally:
        shutil.rmtree(words)


def _take(words: Path, sandbox: list[str]) -> None:
    with runtime(script(pace=0.01)) as host, sync_playwright() as playwright:
        made = host.run(seed, host.broker, words)
        browser = playwright.chromium.launch(executable_path=chromium(), args=sandbox)
        _phone(host, browser, made, "light")
        _phone(host, browser, made, "dark")
        _desk(host, browser, made)
        browser.close()


def _paired(host: Runtime, browser: Browser, **options: Any) -> Page:
    page = browser.new_context(device_scale_factor=2, **options).new_page()
    page.goto(f"{host.origin}/#pair={host.ticket()}")
    page.get_by_label("This device’s name").fill("Ada’s phone")
    page.get_by_role("button", name="Pair", exact=True).click()
    page.locator(".row.need").nth(1).wait_for()
    return page


def _taken(page: Page, name: str) -> None:
    page.locator(".settling").first.wait_for(state="detached")
    page.screenshot(path=DOCS / f"page-{name}.png")


def _phone(host: Runtime, browser: Browser, made: dict[str, str], colours: str) -> None:
    page = _paired(host, browser, **PHONE, color_scheme=colours)
    _taken(page, f"inbox-{colours}")
    go(page, f"/t/{made['install']}")
    page.locator(".command").wait_for()
    _taken(page, f"approval-{colours}")
    page.context.close()


def _desk(host: Runtime, browser: Browser, made: dict[str, str]) -> None:
    page = _paired(host, browser, **DESK, color_scheme="dark")
    go(page, f"/t/{made['parser']}")
    page.locator(".approval .diff").first.wait_for()
    _taken(page, "desk-dark")
    page.context.close()


if __name__ == "__main__":
    main()
