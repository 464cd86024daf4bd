"""A page that sleeps, or whose network is gone without a word, for minutes; what ended meanwhile.

The minutes pass by the page's own clock. The network is a proxy that lets nothing through.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest
import trio
from playwright.sync_api import Browser, Page, expect

from bench.slow_link import SlowLink, slow_link
from mux.demo.scripted_model import Hold, Run, Say
from tests.end_to_end.brokered import client
from tests.end_to_end.chromium import PATIENCE
from tests.end_to_end.lives import kill_app_server, life
from tests.page.conftest import PHONE
from tests.page.runtime import Runtime, runtime

AWAY = "12:00"
"""Minutes and seconds: longer than anybody waits for an answer."""


@attrs.frozen
class Away:
    """A page behind a network that a test takes away."""

    host: Runtime
    link: SlowLink
    page: Page

    def loses_its_network(self) -> None:
        """Nothing comes any more; minutes later the page has noticed by itself."""
        self.host.now(self.link.lose)
        self.page.clock.run_for(40_000)
        expect(self.page.locator(".thread .state-offline")).to_be_visible()
        self.page.clock.fast_forward(AWAY)

    def comes_back(self) -> None:
        """The network is there again, and the screen comes on."""
        self.host.now(self.link.find)
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(self.page.locator(".thread .state-live")).to_be_visible()


@contextmanager
def _away(browser: Browser, title: str, clock: bool = True) -> Iterator[tuple[Away, str]]:
    with runtime() as host:
        links: list[SlowLink] = []
        name, _, port = host.origin.removeprefix("http://").partition(":")

        async def keep(task_status: trio.TaskStatus[None]) -> None:
            async with slow_link((name, int(port)), 0.0) as link:
                links.append(link)
                task_status.started()
                await trio.sleep_forever()

        host.run(host.start, keep)
        thread = host.begin(title, "hello")
        with browser.new_context(**PHONE) as context:
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            if clock:
                page.clock.install()
            page.goto(f"{links[0].origin}/#pair={host.ticket()}")
            page.get_by_role("button", name="Pair", exact=True).click()
            page.locator(".row", has_text=title).first.click()
            expect(page.locator(".thread .state-live")).to_be_visible()
            expect(page.locator(".agent")).to_be_visible()
            yield Away(host, links[0], page), thread


FRAMES = """() => {
    window.steps = [];
    const length = () => [...document.querySelectorAll('.agent')].at(-1).textContent.length;
    let before = length();
    const look = () => {
        const now = length();
        if (now !== before) steps.push(now - before);
        before = now;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""
"""Notes how many characters more the last text has, frame by frame."""

A_FRAME = 3_500
"""Characters that one frame draws at most: what is due, and the paragraph that it ends in."""


def test_what_came_during_a_sleep_is_drawn_some_with_each_frame(browser: Browser) -> None:
    with _away(browser, "Long asleep", clock=False) as (away, thread):
        page, host = away.page, away.host
        paragraphs = [f"Paragraph {n} says this. " + "And more. " * 60 + "\n\n" for n in range(80)]
        said: tuple[str | Hold, ...] = ("It begins.\n\n", Hold("asleep"), *paragraphs)
        host.now(host.model.on, "write a lot", Say(chunks=said))
        _say(away, thread, "write a lot")
        expect(page.locator(".agent").last).to_contain_text("It begins.")
        host.now(away.link.lose)
        page.evaluate("dispatchEvent(new Event('offline'))")
        expect(page.locator(".thread .state-offline")).to_be_visible()
        host.now(host.model.release, "asleep")
        host.run(lambda: host.desk.wait_method("turn/completed", threadId=thread))
        page.evaluate(FRAMES)
        away.comes_back()
        last = page.locator(".agent").get_by_text("Paragraph 79 says this.")
        expect(last).to_be_in_viewport(timeout=PATIENCE)
        steps = page.evaluate("steps")
        assert sum(steps) > 40_000
        assert max(steps) < A_FRAME


def _say(away: Away, thread: str, words: str) -> None:
    away.host.run(away.host.desk.start_turn, thread, words)


def test_minutes_without_a_network_in_the_middle_of_a_text(browser: Browser) -> None:
    with _away(browser, "Mid text") as (away, thread):
        page, host = away.page, away.host
        _say(away, thread, "tell me a story")
        expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
        away.loses_its_network()
        host.now(host.model.release, "story")
        host.run(lambda: host.desk.wait_method("turn/completed", threadId=thread))
        host.run(host.desk.run_turn, thread, "and later")
        expect(page.get_by_text("The end.")).to_have_count(0)
        away.comes_back()
        expect(page.locator(".agent", has_text="The end.")).to_have_count(1)
        expect(page.locator(".agent", has_text="You said: and later")).to_have_count(1)
        expect(page.locator(".user")).to_have_count(3)
        expect(page.locator(".working")).to_have_count(0)


def test_minutes_without_a_network_in_the_middle_of_a_command(browser: Browser) -> None:
    with _away(browser, "Mid command") as (away, thread):
        page, host = away.page, away.host
        gate = host.broker.home.work / "gate"
        # Natively, too, what a command prints in its first moment isn't streamed.
        command = f"sleep 1; echo before; while ! test -e {gate}; do sleep 0.1; done; echo after"
        host.now(host.model.on, "wait for the gate", Run(command), Say("It opened."))
        _say(away, thread, "wait for the gate")
        expect(page.locator(".output")).to_contain_text("before")
        away.loses_its_network()
        gate.touch()
        host.run(lambda: host.desk.wait_method("turn/completed", threadId=thread))
        away.comes_back()
        expect(page.locator(".command")).to_contain_text("exit 0")
        expect(page.locator(".command")).to_have_count(1)
        assert page.locator(".output pre").inner_text().split() == ["before", "after"]
        expect(page.get_by_text("It opened.").last).to_be_visible()


def test_the_app_server_is_killed_while_the_page_hears_nothing(browser: Browser) -> None:
    with _away(browser, "Killed unheard") as (away, thread):
        page, host = away.page, away.host
        _say(away, thread, "tell me a story")
        expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
        away.loses_its_network()
        host.run(kill_app_server, host.desk)
        host.run(life, host.desk, 2)
        away.comes_back()
        expect(page.get_by_text(re.compile("^Interrupted"))).to_be_visible()
        expect(page.locator(".working")).to_have_count(0)
        page.get_by_label("Message", exact=True).fill("hello again")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".agent", has_text="Hello! What shall")).to_have_count(2)


@pytest.mark.parametrize("heard", [True, False])
def test_the_broker_is_killed_in_the_middle_of_a_text(browser: Browser, heard: bool) -> None:
    with _away(browser, "Broker killed") as (away, thread):
        page, host = away.page, away.host
        _say(away, thread, "tell me a story")
        expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
        if not heard:
            away.loses_its_network()
        os.kill(host.broker.broker_pid, signal.SIGKILL)

        async def again() -> None:
            async with client(host.broker, "desk again") as peer:
                await peer.request("mux/status")

        host.run(again)
        host.now(host.model.release, "story")
        away.comes_back()
        expect(page.locator(".agent", has_text="Sentence 0 of")).to_have_count(1)
        expect(page.locator(".agent").last).to_contain_text("The end.")
        expect(page.locator(".working")).to_have_count(0)
