"""What may differ between the broker and the real thing, and why: the table in `docs/protocol.md`.

Each row there has a key. Here stands for each key how a difference is recognised as that one, and
which other test shows it where a story can't (a full queue, a slow client, plain HTTP).

Hands to: the test. Hears from: `comparing`, `docs/protocol.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.conformance.comparing import MISSING, Difference
from tests.conformance.stage import Story

ROOT: Final = Path(__file__).parents[2]
HEADING: Final = "## Intended differences"


@attrs.frozen
class Intended:
    """How one is recognised. `elsewhere` is the test that shows what no story does.

    One that is `anywhere` may be seen in any story, so that none has to name it; one of a `crowd`,
    by chance, in those that share processes with others.
    """

    covers: Callable[[Difference], bool] = lambda _: False
    elsewhere: str = ""
    anywhere: bool = False
    crowd: bool = False


def _named_process(found: Difference) -> bool:
    """The first client names the process natively; here it is `upstream.client_name`."""
    if found.path.endswith("originator"):
        return bool(found.broker == "appmux")
    if found.path != "result.userAgent":
        return False
    own_name, rest = str(found.broker).split("/", 1)
    return own_name == "appmux" and str(found.native).endswith(f"/{rest}")  # a name may have a "/"


def _lone(found: Difference, *methods: str) -> bool:
    """Whether an event of these methods is there on one side only."""
    return found.path == "" and found.method in methods


def _late_text(found: Difference) -> bool:
    """Natively a joiner isn't told what runs, nor what it has streamed so far."""
    if _lone(found, "item/started"):
        return found.native is MISSING
    return _lone(found, "item/agentMessage/delta") or (
        found.path == "params.delta" and str(found.broker).endswith(str(found.native))
    )


def _joiner_items(found: Difference) -> bool:
    return bool(re.search(r"items\[\d+\]\.id$", found.path) and found.native.startswith("item-"))


def _only_here(found: Difference) -> bool:
    if found.path == "error":
        return "no rollout found" in found.native["message"]
    return found.path == "result" and found.channel.endswith("thread/resume")


def _tool_owner(found: Difference) -> bool:
    """Others aren't asked; and why it failed is told to the model in words that help it."""
    if _lone(found, "item/tool/call"):
        return found.broker is MISSING
    return bool(found.native == "dynamic tool request failed")


def _not_a_strangers(found: Difference) -> bool:
    return found.client == "stranger" and found.path == "" and found.broker is MISSING


def _own_search(found: Difference) -> bool:
    return found.method.startswith("fuzzyFileSearch/session") and found.broker is MISSING


def _another_decided(found: Difference) -> bool:
    """What became of the command differs, and when its thread was active again."""
    if _lone(found, "thread/status/changed"):
        return True
    return found.method == "item/completed" and found.path.startswith("params.item.")


def _told_what_is_wrong(found: Difference) -> bool:
    return found.channel == "stray" and found.native is MISSING and found.method == "error"


def _read_in_one_way(found: Difference) -> bool:
    return found.path == "error.message" and "`params` must be an object" in str(found.broker)


def _not_initialized(found: Difference) -> bool:
    return found.path == "error.message" and found.broker == "Not initialized"


def _deprecation_notice(found: Difference) -> bool:
    return _lone(found, "deprecationNotice")


def _more_rate_limits(found: Difference) -> bool:
    return found.method == "account/rateLimits/updated" and found.native is MISSING


def _read_state(found: Difference) -> bool:
    """Before 0.171 who doesn't follow the thread isn't told natively."""
    return _lone(found, "thread/readState/changed") and found.native is MISSING


_END: Final = "tests/end_to_end"

INTENDED: Final[Mapping[str, Intended]] = {
    "user-agent": Intended(_named_process, anywhere=True),
    "late-text": Intended(_late_text),
    "joiner-items": Intended(
        _joiner_items,  # natively mended since
        elsewhere=f"{_END}/test_late_join.py::test_a_late_view_is_that_of_one_that_was_there",
        anywhere=True,
    ),
    "read-state": Intended(
        _read_state,  # natively so since 0.171
        elsewhere="tests/core/test_broker_followers.py::test_what_is_read_is_told_to_everybody",
        anywhere=True,
    ),
    "only-here": Intended(_only_here),
    "abstaining": Intended(_another_decided),
    "who-may-answer": Intended(_another_decided),
    "directories": Intended(
        elsewhere=f"{_END}/test_directories.py"
        "::test_a_thread_takes_nothing_from_a_directory_that_isnt_listed"
    ),
    "config-shown": Intended(
        elsewhere=f"{_END}/test_directories.py"
        "::test_of_the_configuration_no_more_is_shown_than_a_thread_tells"
    ),
    "policies": Intended(
        elsewhere=f"{_END}/test_policies.py::test_under_quorum_the_program_does_not_decide_alone"
    ),
    "machines": Intended(
        elsewhere=f"{_END}/test_sdk.py::test_while_a_person_looks_the_person_decides"
    ),
    "granted-permissions": Intended(
        elsewhere="tests/core/protocol/test_granting.py::test_more_than_was_asked_is_no_answer"
    ),
    "request-ids": Intended(
        elsewhere="tests/core/test_broker_server_requests.py"
        "::test_ids_are_unique_over_restarts_of_the_app_server"
    ),
    "tool-owner": Intended(_tool_owner),
    "asked-of-one": Intended(
        elsewhere="tests/core/test_broker_asked_of_one.py"
        "::test_a_machines_request_goes_to_one_client_and_then_the_next"
    ),
    "sub-agents": Intended(_not_a_strangers),
    "title-threads": Intended(_not_a_strangers),
    "one-title": Intended(
        elsewhere=f"{_END}/test_titles.py"
        "::test_an_outcome_told_again_is_as_the_first_and_fits_the_schema"
    ),
    "searches": Intended(_own_search),
    "overload": Intended(
        elsewhere=f"{_END}/test_flow.py::test_what_is_past_the_queue_is_refused_and_the_rest_answered"
    ),
    "bounds": Intended(
        elsewhere="tests/core/test_broker_bounds.py::test_what_is_read_here_has_few_parts"
    ),
    "floods": Intended(
        elsewhere="tests/downstream/test_connection.py"
        "::test_what_asks_for_nothing_is_read_at_its_rate_then_its_client_is_cut"
    ),
    "deadline": Intended(
        elsewhere="tests/core/test_broker_flow.py"
        "::test_an_answer_that_never_comes_becomes_an_error_after_a_deadline"
    ),
    "late-interrupt": Intended(
        elsewhere=f"{_END}/test_interrupts.py"
        "::test_a_second_interrupt_is_answered_and_a_restart_does_not_wait_for_it"
    ),
    "invalid-messages": Intended(_told_what_is_wrong),
    "one-reading": Intended(
        _read_in_one_way,
        elsewhere=f"{_END}/test_spellings.py::test_nobody_is_unsubscribed_by_another_spelling",
    ),
    "long-texts": Intended(
        elsewhere="tests/core/protocol/envelope/test_text_limits.py::test_a_method_has_a_limit"
    ),
    "before-the-handshake": Intended(_not_initialized),
    "gate-later": Intended(
        elsewhere=f"{_END}/test_experimental.py"
        "::test_a_codex_that_has_no_schema_is_served_without_a_gate"
    ),
    "deprecation-notice": Intended(
        _deprecation_notice,
        elsewhere="tests/core/test_broker_followers.py"
        "::test_a_deprecation_notice_of_no_known_cause_goes_to_those_that_ask_something",
        crowd=True,
    ),
    "rate-limits": Intended(
        _more_rate_limits,
        elsewhere="tests/core/test_broker_followers.py::test_rate_limits_go_to_those_that_follow_the_thread_that_works",
        crowd=True,
    ),
    "slow-client": Intended(
        elsewhere=f"{_END}/test_lag.py"
        "::test_one_of_three_stops_reading_while_100_000_notifications_stream"
    ),
    "pages": Intended(
        elsewhere=f"{_END}/test_browser.py::test_the_smallest_page_is_paired_by_a_link_and_attaches"
    ),
    "proxies": Intended(
        elsewhere="tests/downstream/http/test_proxies.py::test_who_needs_no_token_doesnt_come_by_a_proxy"
    ),
    "http": Intended(
        elsewhere="tests/downstream/http/test_routes.py::test_a_head_that_never_ends_is_given_up",
    ),
}


def keys_in_docs() -> list[str]:
    """The keys of the table in `docs/protocol.md`, in its order."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.split(HEADING, 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)


def is_there(test: str) -> bool:
    """Whether the test `path::function` exists."""
    path, function = test.split("::")
    return f"def {function}(" in (ROOT / path).read_text()


def sort_out(found: list[Difference], story: Story) -> tuple[set[str], list[Difference]]:
    """Which of the story's keys cover what of it; and what none covers."""
    usable = {
        key: each
        for key, each in INTENDED.items()
        if each.anywhere
        or (each.crowd and not (story.alone or story.has_own))
        or key in story.shows
    }
    shown, uncovered = set[str](), list[Difference]()
    for difference in found:
        keys = {key for key, each in usable.items() if each.covers(difference)}
        shown |= keys
        by_chance = difference.path == "" and difference.method in story.chance
        if not keys and not by_chance:
            uncovered.append(difference)
    return shown & set(story.shows), uncovered
