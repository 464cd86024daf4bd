"""Long threads: some screens of them are on the page, wherever one reads."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from mux.demo.scripted_model import Hold, Say
from tests.page.conftest import Opener
from tests.page.runtime import Runtime

MESSAGES = 150

MOST = 80
"""Items on the page: more would be felt on a phone."""

READ = """async ([direction, until]) => {
    const box = document.querySelector('.timeline');
    const seen = new Set();
    let most = 0, moved = 0;
    const frames = async n => { while (n--) await new Promise(requestAnimationFrame); };
    for (let step = 0; step < 4000 && !seen.has(until); step++) {
        const all = [...document.querySelectorAll('.agent')];
        most = Math.max(most, all.length);
        for (const each of all) seen.add(/number (\\d+)/.exec(each.textContent)?.[1]);
        // What is read stays where it is, whatever is put before it or taken away.
        const edge = box.getBoundingClientRect();
        const inside = all.find(each => each.getBoundingClientRect().bottom > edge.top + 1);
        const before = inside?.getBoundingClientRect().top;
        await frames(2);
        if (inside?.isConnected) {
            moved = Math.max(moved, Math.abs(inside.getBoundingClientRect().top - before));
        }
        box.scrollTop += direction * 400;
        await frames(1);
    }
    seen.delete(undefined);
    return {seen: [...seen].map(Number).sort((a, b) => a - b), most, moved};
}"""


def _long(host: Runtime, opened: Opener) -> tuple[Page, str]:
    text = "A line that says something, and a second one.\n\n- with a list\n- of two\n"
    said = tuple(Say(f"Message number {n}.\n\n{text * 2}") for n in range(MESSAGES))
    host.now(host.model.on, "many messages", said)
    thread = host.begin("A long one", "hello")
    host.run(host.desk.run_turn, thread, "many messages")
    page = opened(path=f"/t/{thread}")
    expect(page.locator(".agent").last).to_contain_text(f"Message number {MESSAGES - 1}.")
    return page, thread


def test_a_long_thread_is_read_to_its_beginning_and_back(host: Runtime, opened: Opener) -> None:
    page, _ = _long(host, opened)
    expect(page.locator(".agent").last).to_be_in_viewport()
    assert page.locator(".agent").count() < MOST
    up = page.evaluate(READ, [-1, "0"])
    assert up["seen"] == list(range(MESSAGES))
    assert up["most"] < MOST
    assert up["moved"] < 2
    down = page.evaluate(READ, [1, f"{MESSAGES - 1}"])
    assert down["seen"] == list(range(MESSAGES))
    assert down["most"] < MOST
    assert down["moved"] < 2


def test_what_comes_while_one_reads_above_is_counted_and_reached_at_once(
    host: Runtime, opened: Opener
) -> None:
    page, thread = _long(host, opened)
    # What is older comes meanwhile, and isn't new.
    page.evaluate(READ, [-1, "0"])
    expect(page.get_by_text("The beginning", exact=True)).to_be_visible()
    new = page.get_by_role("button", name="new")
    expect(new).to_have_count(0)
    host.run(host.desk.run_turn, thread, "hello")
    expect(new).to_have_text("2 new")
    new.click()
    expect(page.locator(".agent").last).to_contain_text("Hello! What shall we look at?")
    expect(page.locator(".agent").last).to_be_in_viewport()


def test_what_streams_at_the_end_is_followed_and_old_items_go(
    host: Runtime, opened: Opener
) -> None:
    page, thread = _long(host, opened)
    more = [f"Paragraph {n} of a long answer.\n\n" for n in range(300)]
    long: tuple[str | Hold, ...] = (*more[:200], Hold("long"), *more[200:])
    host.now(host.model.on, "long answer", Say(chunks=long))
    host.run(host.desk.start_turn, thread, "long answer")
    expect(page.locator(".agent").last).to_contain_text("Paragraph 199 of")
    expect(page.locator(".agent").get_by_text("Paragraph 199 of")).to_be_in_viewport()
    host.now(host.model.release, "long")
    expect(page.locator(".agent").get_by_text("Paragraph 299 of")).to_be_in_viewport()
    # Those before it are let go of, and had again by scrolling up.
    expect(page.locator(".agent").get_by_text("Message number 100.")).to_have_count(0)
    up = page.evaluate(READ, [-1, "0"])
    assert up["seen"] == list(range(MESSAGES))
