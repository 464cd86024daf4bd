"""The thin line: the inbox, one thread live, one approval, the composer, and coming back."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.page.conftest import DESK, Opener, press
from tests.page.runtime import Runtime

REQUEST = "item/commandExecution/requestApproval"


def _asked(host: Runtime, thread: str) -> int:
    asked = host.run(lambda: host.desk.wait_method(REQUEST, threadId=thread))
    return int(asked["id"])


def _say(page: Page, words: str) -> None:
    page.get_by_label("Message", exact=True).fill(words)
    page.get_by_role("button", name=re.compile("^(Send|Steer|Queue)$")).click()


def test_what_waits_stands_in_the_inbox_and_in_the_title(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Leave a note", "note")
    _asked(host, thread)
    page = opened()
    need = page.locator(".row.need", has_text="Leave a note")
    expect(need).to_contain_text("echo approved | tee -a note.txt")
    expect(need).to_contain_text("outside the sandbox")
    expect(page).to_have_title(re.compile(r"^\(\d+\) "))
    need.click()
    expect(page.locator(".approval")).to_contain_text("Run this command?")


def test_a_thread_that_is_opened_is_read(host: Runtime, opened: Opener) -> None:
    host.begin("Read it", "hello")
    page = opened(**DESK)
    row = page.locator(".row", has_text="Read it")
    expect(row.get_by_role("img", name="Unread")).to_be_visible()
    row.click()
    expect(row.get_by_role("img", name="Unread")).to_have_count(0)


def test_an_approval_on_the_page_runs_the_command_and_is_gone_elsewhere(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Approve it", "note")
    id = _asked(host, thread)
    page = opened(path=f"/t/{thread}")
    expect(page.locator(".command")).to_be_visible()
    press(page, "Approve")
    host.run(lambda: host.desk.wait_method("serverRequest/resolved", requestId=id))
    expect(page.get_by_text("The note is there.").last).to_be_visible()
    expect(page.locator(".approval")).to_have_count(0)
    expect(page.get_by_text("exit 0")).to_be_visible()


def test_an_approval_decided_elsewhere_goes(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Decided at the desk", "note")
    id = _asked(host, thread)
    page = opened(path=f"/t/{thread}")
    expect(page.locator(".approval")).to_be_visible()
    # Joined: of a declined command the app-server's own history says nothing afterwards.
    expect(page.locator(".command")).to_be_visible()
    host.run(host.desk.respond, id, {"decision": "decline"})
    expect(page.locator(".approval")).to_have_count(0)
    expect(page.locator(".command")).to_contain_text("declined")


def test_no_answer_button_works_just_after_its_card_appeared(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Guarded", "hello")
    page = opened(path=f"/t/{thread}")
    # Whatever appears is pressed at once, as by a finger that was on its way.
    page.evaluate(
        """() => new MutationObserver(() => {
            const button = document.querySelector('.answers .primary');
            if (!button || document.body.dataset.pressed) return;
            document.body.dataset.pressed = 'yes';
            button.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}));
            button.click();
        }).observe(document.body, {childList: true, subtree: true})"""
    )
    host.run(host.desk.start_turn, thread, "note")
    id = _asked(host, thread)
    page.locator("body[data-pressed]").wait_for()
    page.locator(".answers .settling").first.wait_for(state="detached")
    waiting = host.request("mux/approvals/list")["approvals"]
    assert id in [each["id"] for each in waiting]
    press(page, "Approve")
    expect(page.locator(".approval")).to_have_count(0)


def test_a_turn_streams_is_steered_queued_and_interrupted(host: Runtime, opened: Opener) -> None:
    thread = host.begin("A story", "hello")
    page = opened(path=f"/t/{thread}")
    _say(page, "tell me a story")
    expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
    expect(page.locator(".agent").last).not_to_contain_text("The end.")
    page.get_by_label("Message", exact=True).fill("and this later: hello")
    page.get_by_text("Queue", exact=True).click()
    page.get_by_role("button", name="Queue").click()
    expect(page.locator(".outbox")).to_contain_text("queued as number 1")
    page.get_by_role("button", name="Interrupt the turn").click()
    expect(page.get_by_text(re.compile("^Interrupted"))).to_be_visible()
    expect(page.locator(".held")).to_contain_text("was interrupted")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".user").last).to_contain_text("and this later: hello")
    expect(page.locator(".outbox")).to_have_count(0)


def test_a_message_of_another_client_appears_as_it_comes(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Both speak", "hello")
    page = opened(path=f"/t/{thread}", **DESK)
    expect(page.get_by_text("Hello! What shall we look at?").last).to_be_visible()
    host.run(host.desk.start_turn, thread, "say something from the desk")
    expect(page.locator(".user").last).to_contain_text("say something from the desk")
    expect(page.locator(".agent").last).to_contain_text("You said: say something from the desk")


def test_what_was_missed_without_a_network_is_there_afterwards_once(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Away", "hello")
    page = opened(path=f"/t/{thread}")
    expect(page.get_by_text("Hello! What shall we look at?").last).to_be_visible()
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator(".thread .state-offline")).to_be_visible()
    host.run(host.desk.run_turn, thread, "while you were away")
    _say(page, "and I wrote this meanwhile")
    expect(page.locator(".outbox")).to_contain_text("waits for the connection")
    page.context.set_offline(False)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator(".thread .state-live")).to_be_visible()
    expect(page.get_by_text("You said: while you were away")).to_have_count(1)
    expect(page.locator(".user", has_text="and I wrote this meanwhile")).to_have_count(1)


def test_a_reload_in_the_middle_shows_what_streamed(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Reloaded", "hello")
    page = opened(path=f"/t/{thread}")
    _say(page, "tell me a story")
    expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
    page.reload()
    expect(page.locator(".agent").last).to_contain_text("Sentence 0 of the story.")
    host.now(host.model.release, "story")
    expect(page.locator(".agent").last).to_contain_text("The end.")
    expect(page.locator(".user")).to_have_count(2)
