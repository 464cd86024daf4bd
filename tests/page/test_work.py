"""The rest of what one does on the page: begin threads, review, send pictures, manage devices."""

from __future__ import annotations

import base64
import re
from typing import Final

from playwright.sync_api import FilePayload, expect

from tests.end_to_end.chromium import PATIENCE
from tests.page.conftest import DESK, Opener, go, press
from tests.page.runtime import Runtime
from tests.page.scenes import PARSER

PNG: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_new_thread_begins_in_a_directory_with_a_first_message(
    host: Runtime, opened: Opener
) -> None:
    (host.broker.home.work / "inside").mkdir(exist_ok=True)
    page = opened(path="/new")
    page.get_by_label("What should be done?").fill("hello from a new one")
    page.get_by_label("Another directory").fill(str(host.broker.home.work))
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("dialog").get_by_role("button", name="inside").click()
    page.get_by_role("button", name="Use this one").click()
    expect(page.get_by_label("Another directory")).to_have_value(re.compile("/inside$"))
    page.get_by_role("button", name="Begin").click()
    expect(page.locator(".agent").last).to_contain_text("Hello! What shall we look at?")
    thread = page.url.rpartition("/")[2]
    read = host.request("thread/read", {"threadId": thread})["thread"]
    assert read["cwd"].endswith("/inside")


def test_comments_on_lines_go_as_one_message(host: Runtime, opened: Opener) -> None:
    (host.broker.home.work / "parser.py").write_text(PARSER)
    thread = host.begin("Reviewed", "patch")
    page = opened(path=f"/t/{thread}")
    press(page, "Approve")
    expect(page.get_by_text("Patched.").last).to_be_visible()
    page.get_by_role("button", name="Menu of this thread").click()
    page.get_by_role("button", name="Review its changes").click()
    expect(page.locator(".review .file")).to_have_count(2)
    page.get_by_role("button", name=re.compile("Comment on line .*UNICODE")).click()
    page.get_by_label("Comment", exact=True).fill("Is the flag needed?")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("button", name=re.compile("Comment on line .*test_accents")).click()
    page.get_by_label("Comment", exact=True).fill("Name it after what it shows.")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Send 2 comments as one message").click()
    said = page.locator(".user").last
    expect(said).to_contain_text("Is the flag needed?")
    expect(said).to_contain_text("Name it after what it shows.")
    expect(said).to_contain_text("parser.py:3")
    comments = page.locator(".user", has_text=re.compile("flag needed|Name it after"))
    expect(comments).to_have_count(1)


def test_a_picture_goes_with_a_message_and_other_files_are_uploaded(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Sees", "hello")
    page = opened(path=f"/t/{thread}")
    files: list[FilePayload] = [
        {"name": "dot.png", "mimeType": "image/png", "buffer": PNG},
        {"name": "words.txt", "mimeType": "text/plain", "buffer": b"words"},
        {"name": "huge.gif", "mimeType": "image/gif", "buffer": PNG + b"\0" * (8 << 20)},
    ]
    page.locator("input[type=file][multiple]").set_input_files(files)
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    sent = page.get_by_role("list", name="Files to send").get_by_role("listitem")
    expect(sent).to_have_count(2)
    expect(sent.filter(has_text="words.txt")).to_contain_text("on the host")
    expect(sent.filter(has_text="huge.gif")).to_contain_text("on the host")
    page.get_by_role("button", name="Remove huge.gif").click()
    page.get_by_label("Message", exact=True).fill("what is this")
    page.get_by_role("button", name="Send").click()
    words = host.broker.home.work / "uploads" / "words.txt"
    expect(page.locator(".user").last).to_contain_text(f"Attached file: {words}")
    assert words.read_text() == "words"
    expect(sent).to_have_count(0)
    expect(page.locator(".user").last.locator("img")).to_be_visible()
    expect(page.locator(".agent").last).to_contain_text("You said: what is this")
    assert "input_image" in str(host.model.requests[-1]["input"])


def test_a_draft_is_kept_over_a_reload(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Drafted", "hello")
    page = opened(path=f"/t/{thread}")
    page.get_by_label("Message", exact=True).fill("half a thought")
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_have_value("half a thought")


def test_the_menu_renames_forks_and_archives(host: Runtime, opened: Opener) -> None:
    thread = host.begin("An old name", "hello")
    page = opened(path=f"/t/{thread}")
    menu = page.get_by_role("button", name="Menu of this thread")
    menu.click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("A new name")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.locator("h1:visible")).to_have_text("A new name")
    menu.click()
    page.get_by_role("button", name="Fork into a new thread").click()
    expect(page).not_to_have_url(re.compile(thread))
    expect(page.get_by_text("Hello! What shall we look at?").last).to_be_visible()
    page.go_back()
    expect(page).to_have_url(re.compile(thread))
    menu.click()
    page.get_by_role("button", name="Archive").click()
    expect(page.locator(".toast", has_text="archived")).to_be_visible()
    # Its copy, of the same name, is still there.
    expect(page.locator(".row", has_text="A new name")).to_have_count(1)
    page.get_by_role("button", name="Search threads").click()
    page.get_by_label("Archived").check()
    expect(page.locator(".row", has_text="A new name")).to_be_visible()


def test_a_search_finds_threads_by_their_titles(host: Runtime, opened: Opener) -> None:
    host.begin("Zebra crossing", "hello")
    page = opened()
    expect(page.locator(".row", has_text="Zebra crossing")).to_be_visible()
    page.get_by_role("button", name="Search threads").click()
    page.get_by_role("searchbox").fill("zebra")
    expect(page.get_by_role("heading", name="Found")).to_be_visible()
    expect(page.locator(".row")).to_have_count(1)


def test_a_device_is_invited_from_the_page_and_revoked(host: Runtime, opened: Opener) -> None:
    page = opened(path="/people", **DESK)
    page.get_by_role("button", name="Invite").click()
    page.get_by_text("Watch", exact=True).click()
    page.get_by_role("button", name="Show the code").click()
    expect(page.locator(".qr")).to_be_visible()
    letters = page.locator(".code.letters").inner_text()
    browser = page.context.browser
    assert browser is not None
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)
        guest = context.new_page()
        guest.goto(host.origin)
        guest.get_by_label("The eight letters").fill(letters.lower())
        guest.get_by_label("This device’s name").fill("A guest <b>")
        guest.get_by_role("button", name="Pair", exact=True).click()
        code = guest.locator(".code").inner_text()
        expect(page.locator(".code")).to_have_text(code)
        page.get_by_role("button", name="The same: let it in").click()
        guest.locator(".state-live").first.wait_for()
        expect(page.get_by_role("button", name=re.compile("A guest <b>"))).to_be_visible()
        page.get_by_role("button", name=re.compile("A guest <b>")).click()
        page.get_by_role("button", name="Revoke").click()
        page.get_by_role("button", name="Yes, shut it out at once").click()
        expect(guest.get_by_role("heading", name="This browser isn’t paired")).to_be_visible()


def test_who_did_what_is_shown_to_who_may_administer(host: Runtime, opened: Opener) -> None:
    def ask(method: str, **params: object) -> None:
        host.run(host.operator.request, method, params)

    ask("mux/devices/add", name="tablet 0", scopes=["observe"])
    for n in range(25):
        ask("mux/devices/rename", name=f"tablet {n}", to=f"tablet {n + 1}")
    ask("mux/devices/revoke", name="tablet 25")
    thread = host.begin("Who decided", "note")
    page = opened(path=f"/t/{thread}")
    press(page, "Approve")
    expect(page.get_by_text("The note is there.").last).to_be_visible()
    go(page, "/people")
    log = page.locator(".card", has=page.get_by_role("heading", name="Who did what"))
    decided = log.get_by_role("listitem").filter(has_text="approved: a command").first
    expect(decided).to_contain_text("you")
    expect(decided.get_by_role("link", name="Who decided")).to_be_visible()
    expect(log).to_contain_text(re.compile(r"let .* in"))
    expect(log).to_contain_text("shut tablet 25 out")
    # What was before, and what else there is.
    expect(log).not_to_contain_text("added tablet 0")
    log.get_by_role("button", name="Show what came before").click()
    expect(log).to_contain_text("added tablet 0")
    expect(decided).to_be_visible()
    expect(log.get_by_role("listitem").filter(has_text="turn/start")).to_have_count(0)
    log.get_by_label("Also who came").check()
    expect(log.get_by_role("listitem").filter(has_text="came").first).to_be_visible()
    decided.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Who decided")).to_be_visible()
    # What was told says what for.
    go(page, "/people")
    told = page.locator(".card", has=page.get_by_role("heading", name="Lately told"))
    expect(told.get_by_role("listitem").filter(has_text="Who decided")).to_contain_text(
        "$ echo approved | tee -a note.txt"
    )
    # A device without the scope isn't shown it, and doesn't ask.
    guest = opened("observe", path="/people")
    expect(guest.get_by_role("heading", name="Here now")).to_be_visible()
    expect(guest.get_by_text("Who did what")).to_have_count(0)


def test_what_happened_since_one_looked_is_told(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Since then", "hello")
    page = opened(path=f"/t/{thread}")
    expect(page.locator(".agent")).to_be_visible()
    page.get_by_role("button", name="Menu of this thread").click()
    page.get_by_role("button", name="What happened since I looked").click()
    expect(page.locator(".digest")).to_contain_text("1 turn")
    page.keyboard.press("Escape")
    host.run(host.desk.run_turn, thread, "something else")
    page.get_by_role("button", name="Menu of this thread").click()
    page.get_by_role("button", name="What happened since I looked").click()
    expect(page.locator(".digest")).to_contain_text("something else")
    expect(page.locator(".digest")).not_to_contain_text("hello")


def test_settings_of_notices_are_kept_by_the_broker(host: Runtime, opened: Opener) -> None:
    page = opened(path="/settings")
    page.get_by_label("Approvals").uncheck()
    page.get_by_label("Nothing is told at night").check()
    expect(page.get_by_label("From")).to_have_value("22:00")
    page.reload()
    expect(page.get_by_label("Approvals")).not_to_be_checked()
    expect(page.get_by_label("Nothing is told at night")).to_be_checked()
