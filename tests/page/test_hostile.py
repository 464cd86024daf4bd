"""What strangers write: nothing runs, nothing loads from elsewhere, nothing reads otherwise."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from mux.demo.scripted_model import Run, Say
from tests.page.conftest import Opener
from tests.page.runtime import Runtime


def _open(host: Runtime, opened: Opener, title: str, words: str) -> tuple[Page, list[str]]:
    elsewhere: list[str] = []
    thread = host.begin(title, words)
    page = opened()
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((host.origin, "data:", "blob:"))
            else elsewhere.append(request.url)
        ),
    )
    page.evaluate("id => history.pushState(null, '', `/t/${id}`)", thread)
    page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")
    return page, elsewhere


def test_markdown_runs_nothing_loads_nothing_and_shows_html_as_text(
    host: Runtime, opened: Opener
) -> None:
    page, elsewhere = _open(host, opened, "<b>Hostile</b>", "hostile")
    agent = page.locator(".agent").last
    expect(agent).to_contain_text("<script>window.hurt = 1</script>")
    expect(agent).to_contain_text("picture: pixel")
    assert agent.locator("script, iframe, style, svg, form, img, h1").count() == 0
    links = agent.locator("a").evaluate_all("all => all.map(a => [a.href, a.rel, a.target])")
    assert links
    for href, rel, target in links:
        assert href.startswith("https://")
        assert "noopener" in rel
        assert target == "_blank"
    expect(page.locator("h1:visible", has_text="<b>Hostile</b>")).to_be_visible()
    assert page.evaluate("window.hurt") is None
    assert elsewhere == []


def test_hidden_characters_in_a_command_are_shown_as_such(host: Runtime, opened: Opener) -> None:
    command = "echo safe\u202e # exe.txt\u2066\u200b && printf '\\a'"
    host.now(
        host.model.on, "bidi", Run(command, escalated=True, justification="why\u202e not"), Say(".")
    )
    page, _ = _open(host, opened, "Bidi\u202e", "bidi")
    what = page.locator(".approval .what")
    expect(what.locator(".unseen", has_text="RLO")).to_be_visible()
    expect(what.locator(".unseen", has_text="LRI")).to_be_visible()
    expect(what.locator(".unseen", has_text="ZWSP")).to_be_visible()
    expect(page.locator(".reason .unseen")).to_have_text("RLO")
    shown = page.locator(".approval").inner_text() + page.title()
    assert not set(shown) & {"\u202e", "\u2066", "\u200b"}


def test_ansi_escapes_become_colours_or_go(host: Runtime, opened: Opener) -> None:
    page, _ = _open(host, opened, "Colours", "colours")
    output = page.locator(".output").last
    expect(output.locator(".ansi-red")).to_have_text("red")
    expect(output.locator(".ansi-green.ansi-bold")).to_have_text("bold green")
    assert "\x1b" not in output.inner_text()


def test_a_long_output_is_folded_to_its_end_and_opened_in_place(
    host: Runtime, opened: Opener
) -> None:
    page, _ = _open(host, opened, "Long", "long output")
    output = page.locator(".output").last
    expect(output).to_contain_text("line 400 of the output")
    assert "line 394" not in output.inner_text()
    output.get_by_role("button", name="Show what came before").click()
    expect(output).to_contain_text("line 1 of the output")


def test_a_line_of_a_megabyte_leaves_the_page_quick(host: Runtime, opened: Opener) -> None:
    host.now(
        host.model.on, "megabyte", Run("head -c 900000 /dev/zero | tr '\\0' x; echo"), Say(".")
    )
    page, _ = _open(host, opened, "Megabyte", "megabyte")
    expect(page.locator(".output").last).to_contain_text("more characters")
    busy = _work_of(page)
    page.get_by_role("button", name="Menu of this thread").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert 0 < busy() < 0.5


def _work_of(page: Page) -> Callable[[], float]:
    """Count the seconds of CPU that the page's own thread works from now on.

    A busy machine makes everything later, and this no more.
    """
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    return busy


def test_a_diff_of_ten_thousand_lines_is_shown_in_parts(host: Runtime, opened: Opener) -> None:
    lines = "\n".join(f"+line {n} <img src=x onerror=alert(1)>" for n in range(10_000))
    patch = f"*** Begin Patch\n*** Add File: <img src=x>.txt\n{lines}\n*** End Patch"
    from mux.demo.scripted_model import Patch  # noqa: PLC0415 (beside what it is for)

    host.now(host.model.on, "ten thousand", Patch(patch), Say("."))
    page, elsewhere = _open(host, opened, "Many lines", "ten thousand")
    card = page.locator(".approval")
    expect(card.locator(".file-name")).to_have_text("<img src=x>.txt")
    assert card.locator(".line").count() < 500
    card.get_by_role("button", name="Show 400 more").click()
    assert 400 < card.locator(".line").count() < 1000
    assert page.locator("img[src='x']").count() == 0
    assert elsewhere == []
