"""What the page shows when what it stands on ends: the app-server, the broker, the network."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.end_to_end.lives import kill_app_server, life
from tests.page.conftest import Opener
from tests.page.runtime import Runtime, runtime


def _say(host: Runtime, thread: str, words: str) -> None:
    host.run(host.desk.start_turn, thread, words)


def test_a_killed_app_server_ends_the_turn_and_the_thread_goes_on(opened: Opener) -> None:
    with runtime() as host:
        thread = host.begin("Killed", "hello")
        page = opened(at=host, path=f"/t/{thread}")
        expect(page.locator(".agent")).to_be_visible()
        _say(host, thread, "tell me a story")
        expect(page.locator(".agent").last).to_contain_text("Sentence 19 of the story.")
        host.run(kill_app_server, host.desk)
        expect(page.get_by_text(re.compile("^Interrupted"))).to_be_visible()
        expect(page.locator(".working")).to_have_count(0)
        page.get_by_label("Message", exact=True).fill("hello again")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".user", has_text="hello again")).to_have_count(1)
        expect(page.locator(".agent").last).to_contain_text("Hello! What shall we look at?")


def test_an_app_server_killed_while_the_page_was_away(opened: Opener) -> None:
    with runtime() as host:
        thread = host.begin("Killed meanwhile", "hello")
        page = opened(at=host, path=f"/t/{thread}")
        expect(page.locator(".agent")).to_be_visible()
        _say(host, thread, "tell me a story")
        expect(page.locator(".agent").last).to_contain_text("Sentence 3 of the story.")
        page.context.set_offline(True)
        page.evaluate("dispatchEvent(new Event('offline'))")
        expect(page.locator(".thread .state-offline")).to_be_visible()
        host.run(kill_app_server, host.desk)
        host.run(life, host.desk, 2)
        host.run(host.desk.run_turn, thread, "hello, after that")
        page.context.set_offline(False)
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator(".thread .state-live")).to_be_visible()
        expect(page.get_by_text(re.compile("^Interrupted"))).to_be_visible()
        expect(page.locator(".user", has_text="hello, after that")).to_have_count(1)
        expect(page.locator(".working")).to_have_count(0)


def test_a_command_that_ran_while_the_page_slept_is_whole_afterwards(opened: Opener) -> None:
    with runtime() as host:
        thread = host.begin("Slept", "hello")
        page = opened(at=host, path=f"/t/{thread}")
        expect(page.locator(".agent")).to_be_visible()
        page.context.set_offline(True)
        page.evaluate("dispatchEvent(new Event('offline'))")
        host.run(host.desk.run_turn, thread, "long output")
        page.context.set_offline(False)
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator(".output")).to_contain_text("line 400 of the output")
        expect(page.locator(".command")).to_have_count(1)
        expect(page.locator(".command")).to_contain_text("exit 0")


def test_a_message_whose_answer_was_lost_is_there_once(opened: Opener) -> None:
    with runtime() as host:
        thread = host.begin("Lost answer", "hello")
        page = opened(at=host, path=f"/t/{thread}")
        expect(page.locator(".agent")).to_be_visible()
        lost: list[str] = []

        def relay(socket: object) -> None:
            server = socket.connect_to_server()  # type: ignore[attr-defined]
            asked: set[int] = set()

            def up(message: str | bytes) -> None:
                text = str(message)
                if '"turn/start"' in text and not lost:
                    asked.add(int(re.search(r'"id":(\d+)', text)[1]))  # type: ignore[index]
                server.send(message)

            def down(message: str | bytes) -> None:
                text = str(message)
                answer = re.match(r'\{(?:"seq":\d+,)?"id":(\d+),"result"', text)
                if answer and int(answer[1]) in asked:
                    # The broker has done it, and the network takes the answer.
                    lost.append(text)
                    socket.close(code=1001)  # type: ignore[attr-defined]
                    return
                socket.send(message)  # type: ignore[attr-defined]

            socket.on_message(up)  # type: ignore[attr-defined]
            server.on_message(down)

        page.route_web_socket(re.compile(".*"), relay)
        page.reload()
        expect(page.locator(".thread .state-live")).to_be_visible()
        page.get_by_label("Message", exact=True).fill("say this once")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".agent", has_text="You said: say this once")).to_be_visible()
        expect(page.locator(".outbox")).to_have_count(0)
        expect(page.locator(".user", has_text="say this once")).to_have_count(1)
        assert lost
        said = [each for each in host.model.requests if "say this once" in str(each["input"][-1])]
        assert len(said) == 1
