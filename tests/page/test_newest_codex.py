"""The page on the newest codex: the stories that hang on what an app-server says.

The other tests of the page run on the codex that is installed. What they show of browsers, pushes
and the broker is the same with any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser

from tests.end_to_end.native import codex_bin
from tests.end_to_end.tui import tmux_is_missing
from tests.newest import VERSION, newest_codex, version_of
from tests.page import test_answers, test_beside_a_terminal, test_thread, test_work
from tests.page.conftest import Opener
from tests.page.runtime import Runtime, runtime

STORIES: Final[tuple[Callable[[Runtime, Opener], None], ...]] = (
    test_thread.test_an_approval_on_the_page_runs_the_command_and_is_gone_elsewhere,
    test_thread.test_an_approval_decided_elsewhere_goes,
    test_thread.test_a_turn_streams_is_steered_queued_and_interrupted,
    test_thread.test_what_was_missed_without_a_network_is_there_afterwards_once,
    test_thread.test_a_reload_in_the_middle_shows_what_streamed,
    test_answers.test_a_question_is_answered_by_large_buttons_and_own_words,
    test_answers.test_a_form_of_an_mcp_server_is_filled_in,
    test_work.test_comments_on_lines_go_as_one_message,
)


@pytest.fixture(scope="module")
def host(built: None) -> Iterator[Runtime]:
    """A running broker whose app-server, and whose terminals, are the newest codex."""
    newest = newest_codex()
    if newest is None:
        pytest.skip(f"npm could not install the newest codex ({VERSION}): `make newest`")
    if version_of(codex_bin()) == VERSION:
        pytest.skip(f"the page's tests run on {VERSION} already: it is the one installed")
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("APPMUX_CODEX_BIN", str(newest))
        with runtime() as made:
            assert made.request("mux/status")["appServer"]["version"] == VERSION
            yield made


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.removeprefix("test_"))
def test_a_story_of_the_page(
    host: Runtime, opened: Opener, story: Callable[[Runtime, Opener], None]
) -> None:
    story(host, opened)


@pytest.mark.skipif(tmux_is_missing(), reason="tmux, in which the TUI runs, is missing")
def test_beside_the_newest_terminal(host: Runtime, opened: Opener, browser: Browser) -> None:
    story = test_beside_a_terminal
    story.test_what_the_page_decides_vanishes_in_the_terminal_and_the_other_way_round(
        host, opened, browser
    )
