"""What is answered on the page: questions, forms, reasons; by two people, and at a terminal."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.page.conftest import DESK, Opener, press
from tests.page.runtime import Runtime

COMMAND = "item/commandExecution/requestApproval"


def _told(host: Runtime) -> str:
    """What the model was last told."""
    return str(host.model.requests[-1]["input"][-1])


def test_a_question_is_answered_by_large_buttons_and_own_words(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Asks", "question")
    page = opened(path=f"/t/{thread}")
    card = page.locator(".approval")
    expect(card).to_contain_text("Which files should the change touch?")
    answer = card.get_by_role("button", name="Answer")
    expect(answer).to_be_disabled()
    card.get_by_role("button", name=re.compile("Parser and callers")).click()
    card.get_by_label("Or in your own words").nth(1).fill("word_list")
    expect(answer).to_be_enabled()
    press(page, "Answer")
    expect(page.get_by_text("Thank you.").last).to_be_visible()
    assert "Parser and callers" in _told(host)
    assert "word_list" in _told(host)


def test_a_form_of_an_mcp_server_is_filled_in(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Fills in", "form")
    page = opened(path=f"/t/{thread}")
    card = page.locator(".approval")
    expect(card).to_contain_text('run tool "ask"?')
    press(page, "Allow")
    expect(card).to_contain_text("Which word?")
    expect(card).to_contain_text("required")
    expect(card.get_by_role("button", name="Send")).to_be_disabled()
    card.get_by_label("word").fill("plum")
    press(page, "Send")
    expect(page.get_by_text("The form came back.").last).to_be_visible()
    assert "plum" in _told(host)


def test_declining_and_saying_why_stops_it_and_says_so(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Declined with a word", "note")
    page = opened(path=f"/t/{thread}")
    page.get_by_role("button", name="Decline and say why").click()
    page.get_by_label("What should it do instead?").fill("hello, do something else")
    page.get_by_role("button", name="Decline and send").click()
    expect(page.locator(".user").last).to_contain_text("hello, do something else")
    expect(page.locator(".agent").last).to_contain_text("Hello! What shall we look at?")
    expect(page.locator(".approval")).to_have_count(0)


def test_two_operators_see_one_decision_and_who_took_it(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Two of them", "note")
    first = opened(path=f"/t/{thread}")
    second = opened(path=f"/t/{thread}", **DESK)
    for each in (first, second):
        expect(each.locator(".command")).to_be_visible()
        expect(each.locator(".approval")).to_be_visible()
    press(first, "Approve")
    expect(second.locator(".settled")).to_contain_text("Approved by ")
    expect(second.locator(".approval")).to_have_count(0)
    expect(first.locator(".command")).to_contain_text("approved by you")


def test_who_may_only_watch_is_told_so(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Watched", "note")
    page = opened("observe", path=f"/t/{thread}")
    expect(page.locator(".approval")).to_contain_text("This device may watch, but not approve.")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    expect(page.get_by_text("This device may watch, but not write.")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_count(0)


def test_without_a_connection_nothing_is_answered(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Not now", "note")
    page = opened(path=f"/t/{thread}")
    expect(page.locator(".approval")).to_be_visible()
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator(".approval .blocked")).to_contain_text("Not connected.")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    page.context.set_offline(False)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_enabled()
    page.wait_for_timeout(500)  # it is offered anew, and a quicker yes is a program's
    press(page, "Approve")
    expect(page.get_by_text("The note is there.").last).to_be_visible()
