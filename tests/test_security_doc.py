"""Each sentence of `docs/security.md` on scopes names the tests that show it, by its key.

Hands to: the test. Hears from: `docs/security.md`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from mux.core.policy.scopes import ALL

ROOT: Final = Path(__file__).parents[1]
HEADING: Final = "## What a client can do once in"

_BULLET = re.compile(r"^- (.*?) <!-- ([a-z0-9-]+) -->$", re.DOTALL | re.MULTILINE)
_SCOPED = "end_to_end/test_scopes.py::"
_DIRS = "end_to_end/test_directories.py::"
_DEVICES = "end_to_end/test_devices.py::"
_CLEARANCE = "core/features/requests/test_directory_clearance.py::"
_FILES = "core/features/history/test_thread_files.py::"
_INBOX = "core/features/inbox/test_inbox.py::"
_NOTICES = "notices/test_requests.py::"
_ASKED = "core/test_asked_by_scope.py::"
_HEARING = "core/test_notifications_scope.py::"
_EACH_ALONE = _SCOPED + "test_devices_of_one_scope_each_on_the_real_app_server"
_EVERY_METHOD = _SCOPED + "test_every_method_against_these_scopes"
_WATCHING = _DEVICES + "test_who_may_only_watch_sees_everything_and_changes_nothing"

SHOWN: Final[dict[str, tuple[str, ...]]] = {
    "observe-sees": (_WATCHING, _EVERY_METHOD),
    "observe-asked": (
        _WATCHING,
        _ASKED + "test_whoever_observes_sees_what_people_are_asked_and_answers_nothing",
    ),
    "observe-inbox": (
        _INBOX + "test_nothing_without_observe",
        _INBOX + "test_who_may_only_observe_sees_no_request_that_isnt_shown_to_such",
        "core/features/history/test_digest.py::test_nothing_without_observe_and_nonsense_is_refused",
    ),
    "observe-files": (
        _FILES + "test_who_may_open_which",
        _FILES + "test_of_another_thread_no_file_is_let_out",
        "end_to_end/test_downloads.py::test_by_scope",
    ),
    "observe-own": (
        _NOTICES + "test_a_device_sets_what_it_is_told_itself",
        _NOTICES + "test_of_another_device_nothing_is_told_or_changed",
        _NOTICES + "test_where_pushes_go_is_each_devices_own",
        _NOTICES + "test_only_a_device_that_got_a_notice_reads_it",
    ),
    "observe-changes-nothing": (
        _WATCHING,
        _EACH_ALONE,
        _SCOPED + "test_what_observers_may_ask_is_called_looking",
    ),
    "observe-resume": (
        _DIRS + "test_who_only_watches_resumes_with_no_override",
        "core/policy/test_scopes.py::test_what_a_request_does_counts",
    ),
    "observe-loads": (
        _DIRS + "test_who_only_watches_loads_a_thread_without_its_directorys_settings",
    ),
    "observe-servers": (
        _DIRS + "test_who_only_watches_loads_a_thread_without_its_directorys_settings",
        _CLEARANCE + "test_what_a_server_list_would_start_needs_admin",
    ),
    "observe-config": (
        _DIRS + "test_of_the_configuration_no_more_is_shown_than_a_thread_tells",
    ),
    "observe-hears": (
        _HEARING + "test_nothing_is_told_to_one_that_may_not_observe",
        _HEARING + "test_what_is_a_clients_own_comes_to_it",
        _HEARING + "test_one_that_drives_and_approves_is_asked_and_told_that_it_is_decided",
    ),
    "approve-answers": (
        _HEARING + "test_one_that_drives_and_approves_is_asked_and_told_that_it_is_decided",
        _ASKED + "test_of_a_newer_codex_a_threads_request_is_for_those_who_approve",
    ),
    "approve-alone": (
        _ASKED + "test_one_that_only_approves_is_told_nothing_and_answers_by_id",
        _HEARING + "test_nothing_is_told_to_one_that_may_not_observe",
    ),
    "approve-refused": (_WATCHING,),
    "approve-no-more": (_EACH_ALONE,),
    "approve-grants": ("core/protocol/test_granting.py::test_more_than_was_asked_is_no_answer",),
    "drive-works": (
        _EVERY_METHOD,
        _EACH_ALONE,
        _DIRS + "test_a_thread_is_sent_nowhere_where_it_may_not_write",
    ),
    "drive-alone": (_HEARING + "test_a_driver_has_its_answers_and_hears_nothing",),
    "drive-directory": (
        _DIRS + "test_a_thread_takes_nothing_from_a_directory_that_isnt_listed",
        _DIRS + "test_a_nested_repository_and_a_worktree_give_nothing",
        _DIRS + "test_a_listed_directory_counts_as_at_the_desk",
        _DIRS + "test_a_fork_takes_nothing_from_its_directory",
    ),
    "drive-writable": (
        _DIRS + "test_elsewhere_a_thread_is_read_only",
        _DIRS + "test_what_a_trusted_root_has_below_it_is_writable_and_no_more",
    ),
    "drive-sent": (_DIRS + "test_a_thread_is_sent_nowhere_where_it_may_not_write",),
    "drive-loosen": (
        _DIRS + "test_what_holds_is_what_it_is_compared_with",
        _DIRS + "test_a_start_is_compared_with_the_hosts_settings",
        _SCOPED + "test_every_param_that_may_loosen_is_judged",
        "core/policy/test_scopes.py::test_whatever_loosens_needs_admin",
    ),
    "drive-brings": ("core/policy/test_scopes.py::test_what_a_request_does_counts",),
    "drive-confined": (
        "end_to_end/test_titles.py::"
        "test_a_devices_tui_has_a_title_made_by_a_thread_that_can_do_nothing",
        _CLEARANCE + "test_one_that_can_do_nothing_keeps_its_config_and_gets_no_servers",
        _CLEARANCE + "test_one_that_can_do_more_is_compared_as_any",
    ),
    "drive-agent": (_DIRS + "test_the_agent_of_a_driver_does_what_it_may_without_asking",),
    "drive-no-approval": (_DIRS + "test_the_agent_of_a_driver_does_what_it_may_without_asking",),
    "drive-queued": (_CLEARANCE + "test_a_turn_that_waited_is_compared_once_more",),
    "drive-tools": (
        _ASKED + "test_each_row_names_its_scope",
        _ASKED + "test_a_tool_without_a_known_owner_is_for_those_who_drive",
    ),
    "drive-brings-files": (
        "end_to_end/test_uploads.py::test_whose_it_is_and_who_may",
        "end_to_end/test_uploads.py::"
        "test_a_file_comes_in_pieces_and_lies_in_the_threads_directory",
    ),
    "drive-named": (_FILES + "test_who_may_open_which",),
    "drive-no-host": (
        _EACH_ALONE,
        _SCOPED + "test_what_reaches_beyond_threads_needs_admin",
    ),
    "admin-methods": (
        _EVERY_METHOD,
        _SCOPED + "test_a_method_that_nobody_knows_needs_admin",
        _SCOPED + "test_what_reaches_beyond_threads_needs_admin",
    ),
    "admin-host": (_DEVICES + "test_who_administers_writes_and_runs_what_the_host_can",),
    "admin-alone": (_EACH_ALONE, _HEARING + "test_nothing_is_told_to_one_that_may_not_observe"),
    "admin-devices": (
        _FILES + "test_who_may_open_which",
        _NOTICES + "test_who_administers_sets_it_for_each",
    ),
    "admin-untouched": (_CLEARANCE + "test_who_may_do_all_passes_byte_for_byte",),
    "admin-machine": (
        _ASKED + "test_a_machines_request_is_put_to_none_without_its_scope",
    ),
    "admin-grants": (
        "access/test_requests.py::test_nobody_grants_what_it_has_not",
        "end_to_end/test_pairing.py::test_nobody_grants_what_it_has_not_itself",
    ),
    "all-four": (
        "access/test_authentication.py::test_without_auth_mode_everybody_is_local",
        "access/test_authentication.py::test_who_has_the_hosts_own_secret_may_do_all",
    ),
    "all-jwt": (
        "access/test_authentication.py::test_scope_limits_a_jwt",
        "access/test_authentication.py::test_a_scope_that_is_not_understood_grants_nothing",
    ),
    "all-refusal": (_EVERY_METHOD,),
    "all-newer": (
        _ASKED + "test_of_a_newer_codex_a_threads_request_is_for_those_who_approve",
        _ASKED + "test_of_a_newer_codex_the_hosts_request_is_for_those_who_administer",
    ),
    "all-notifications": ("core/test_broker_ids.py::test_clients_notifications_go_nowhere",),
    "all-session": (
        "core/test_broker_access.py::test_a_client_may_ask_of_its_own_session_with_any_scopes",
        "end_to_end/test_sessions.py::test_any_device_ends_itself_and_nobody_else_does",
    ),
    "all-page": (
        "end_to_end/test_sessions.py::test_a_browser_has_nothing_of_an_open_listener",
    ),
    "all-handover": (
        "core/features/handover/test_handover.py::test_a_vote_counts_on",
        "core/features/handover/test_handover.py::test_a_queue_goes_on_when_its_turn_is_over",
        "end_to_end/test_browser.py::test_a_browser_survives_a_restart_of_the_broker",
    ),
    "all-over": (
        _DEVICES + "test_revoked_while_attached",
        _DEVICES + "test_other_scopes_count_at_once",
        _DEVICES + "test_a_device_expires_while_it_is_attached",
        _DEVICES + "test_a_jwt_expires_while_it_is_attached",
        "core/test_broker_access.py::test_one_whose_access_has_ended_is_not_heard",
    ),
    "all-turns-go-on": (_DEVICES + "test_revoked_while_attached",),
    "all-clock": (
        _DEVICES + "test_a_device_expires_while_the_machine_sleeps",
        "core/test_broker_access.py::test_a_client_is_closed_when_the_clock_jumps_past_its_end",
    ),
    "all-tui": (
        _DIRS + "test_a_devices_tui_resumes_a_thread_and_works_on_it",
        _DIRS + "test_a_devices_tui_starts_a_thread",
        "end_to_end/test_titles.py::"
        "test_a_devices_tui_has_a_title_made_by_a_thread_that_can_do_nothing",
    ),
}  # fmt: skip
"""By key of a sentence: the tests that show it, below `tests`."""


def section() -> str:
    """What `docs/security.md` says of scopes."""
    whole = (ROOT / "docs" / "security.md").read_text()
    return whole.split(f"{HEADING}\n")[1].split("\n## ")[0]


def test_every_sentence_has_its_key_and_every_key_its_sentence() -> None:
    said = [key for _, key in _BULLET.findall(section())]
    assert len(said) == len(set(said))
    assert set(said) == SHOWN.keys()
    assert len(re.findall(r"^- ", section(), re.MULTILINE)) == len(said)


@pytest.mark.parametrize(("sentence", "key"), _BULLET.findall(section()))
def test_a_key_is_of_one_sentence(sentence: str, key: str) -> None:
    assert re.findall(r"\.(?=\s|$)", sentence) == ["."], f"{key} is more than one"


def test_each_scope_has_a_part() -> None:
    parts = re.findall(r"^### `(\w+)`", section(), re.MULTILINE)
    assert sorted(parts) == sorted(ALL)
    assert {key.partition("-")[0] for key in SHOWN} == {*parts, "all"}


@pytest.mark.parametrize("key", SHOWN)
def test_its_tests_are_there(key: str) -> None:
    assert SHOWN[key]
    for test in SHOWN[key]:
        path, name = test.split("::")
        text = (ROOT / "tests" / path).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), test
