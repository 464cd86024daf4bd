"""Each screen, on a phone and a laptop, dark and light: axe finds nothing, nothing sticks out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.chromium import PATIENCE
from tests.page.axe import violations
from tests.page.conftest import DESK, PHONE, Opener, go
from tests.page.runtime import Runtime, runtime
from tests.page.seeds import seed

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "phone-light": (PHONE, {"color_scheme": "light"}),
    "phone-dark": (PHONE, {"color_scheme": "dark"}),
    "desk-light": (DESK, {"color_scheme": "light", "has_touch": False, "is_mobile": False}),
    "desk-dark": (DESK, {"color_scheme": "dark", "has_touch": False, "is_mobile": False}),
}


@pytest.fixture(scope="module")
def seeded(browser: Browser) -> Iterator[tuple[Runtime, dict[str, str]]]:
    """A runtime with the threads that the pictures show."""
    with runtime() as host:
        yield host, host.run(seed, host.broker)


def _sticks_out(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_axe_finds_nothing_on_any_screen(
    seeded: tuple[Runtime, dict[str, str]], opened: Opener, variant: str
) -> None:
    host, made = seeded
    size, colours = VARIANTS[variant]
    options: dict[str, Any] = {**size, **colours, "reduced_motion": "reduce"}
    page = opened(at=host, **options)
    expect(page.locator(".row.need")).to_have_count(2)
    found: dict[str, list[str]] = {}

    def look(name: str) -> None:
        page.locator(".settling").first.wait_for(state="detached")
        found[name] = violations(page)
        if _sticks_out(page) > 0:
            found[name].append(f"{_sticks_out(page)} pixels stick out")

    look("inbox")
    go(page, f"/t/{made['hello']}")
    expect(page.locator(".agent")).to_be_visible()
    look("thread")
    page.get_by_role("button", name="Menu of this thread").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    look("menu")
    page.get_by_role("button", name="What happened since I looked").click()
    expect(page.locator(".digest, .sheet .trouble")).to_be_visible()
    look("digest")
    page.keyboard.press("Escape")
    go(page, f"/t/{made['install']}")
    expect(page.locator(".answers .primary")).to_be_visible()
    look("approval of a command")
    go(page, f"/t/{made['parser']}")
    expect(page.locator(".approval .diff").first).to_be_visible()
    look("approval of files")
    go(page, f"/t/{made['parser']}/review")
    expect(page.locator(".review .file").first).to_be_visible()
    look("review")
    for path, there in (("/new", "Begin"), ("/people", "Invite"), ("/settings", "Sign out")):
        go(page, path)
        expect(page.get_by_role("button", name=there)).to_be_visible()
        look(path)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_at_twice_the_texts_size_nothing_sticks_out(
    seeded: tuple[Runtime, dict[str, str]], opened: Opener
) -> None:
    host, made = seeded
    page = opened(at=host)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    for path in (
        "/",
        f"/t/{made['install']}",
        f"/t/{made['hello']}",
        "/new",
        "/people",
        "/settings",
    ):
        go(page, path)
        page.locator("h1:visible").first.wait_for()
        assert _sticks_out(page) <= 0, path
    go(page, f"/t/{made['install']}")
    page.get_by_role("button", name="Approve", exact=True).scroll_into_view_if_needed()
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_in_viewport()


def test_the_page_before_it_is_paired(host: Runtime, browser: Browser) -> None:
    with browser.new_context(**PHONE) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(host.origin)
        expect(page.get_by_role("heading", name="This browser isn’t paired")).to_be_visible()
        assert violations(page) == []
        page.get_by_label("The eight letters").fill("no")
        page.get_by_role("button", name="Pair", exact=True).click()
        expect(page.get_by_text("Eight letters, or the whole link.")).to_be_visible()


def test_everything_is_reached_and_answered_by_keyboard(
    seeded: tuple[Runtime, dict[str, str]], opened: Opener
) -> None:
    host, _ = seeded
    thread = host.begin("By keyboard", "note")
    page = opened(at=host, **DESK, has_touch=False, is_mobile=False)
    page.locator(".row.need", has_text="By keyboard").wait_for()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if name in str(page.evaluate("document.activeElement.textContent")):
                return
        raise AssertionError(f"not reached: {name}")

    tab_to("By keyboard")
    page.keyboard.press("Enter")
    expect(page.locator(".approval")).to_be_visible()
    page.locator(".answers .settling").first.wait_for(state="detached")
    tab_to("Decline and say why")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Approve"
    page.keyboard.press("Enter")
    expect(page.get_by_text("The note is there.").last).to_be_visible()
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("hello by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator(".user").last).to_contain_text("hello by keyboard")
    assert page.url.endswith(f"/t/{thread}")
