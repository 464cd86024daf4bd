"""The page beside a real TUI: what one decides vanishes at the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trio
from playwright.sync_api import Browser, expect

from tests.end_to_end.tui import Tui, tmux_is_missing, tui
from tests.page.conftest import Opener, press
from tests.page.runtime import Runtime

pytestmark = pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is missing")

ASKS = "Would you like to run the following command?"

A_PERSONS_MS: Final = 400
"""A yes within 300 ms of the offer counts as a program's, and waits for the person on the page."""


@contextmanager
def terminal(host: Runtime, thread: str) -> Iterator[Tui]:
    """A TUI on a thread, in the runtime's loop, for as long as the block takes."""
    over = trio.Event()
    ready: list[Tui] = []

    async def serve(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        arguments = ["resume", thread, "--remote", host.broker.url]
        async with tui(host.broker.home, *arguments) as shown:
            ready.append(shown)
            task_status.started()
            await over.wait()

    host.run(host.start, serve)
    try:
        yield ready[0]
    finally:
        host.now(over.set)


def test_what_the_page_decides_vanishes_in_the_terminal_and_the_other_way_round(
    host: Runtime, opened: Opener, browser: Browser
) -> None:
    thread = host.begin("Both", "hello")
    inbox, page = opened(), opened(path=f"/t/{thread}")
    expect(page.locator(".agent")).to_be_visible()
    with terminal(host, thread) as shown:
        host.run(shown.see, "Hello! What shall we look at?")
        host.run(host.desk.start_turn, thread, "note")
        host.run(shown.see, ASKS)
        expect(inbox.locator(".groups")).not_to_contain_text("No threads yet.")
        press(page, "Approve")
        host.run(shown.gone, ASKS)
        host.run(shown.see, "The note is there.")
        expect(page.locator(".agent").last).to_contain_text("The note is there.")

        host.run(host.desk.start_turn, thread, "note once more")
        expect(page.locator(".approval")).to_be_visible()
        host.run(shown.see, ASKS)
        page.wait_for_timeout(A_PERSONS_MS)
        host.run(shown.answer, ASKS, "y")
        expect(page.locator(".approval")).to_have_count(0)
        expect(page.locator(".command")).to_have_count(2)
        expect(page.locator(".command").last).to_contain_text("exit 0")
