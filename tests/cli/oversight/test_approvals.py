"""``appmux approvals``, ``approve``, ``decline``: which one is meant, what is shown and said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.cli.oversight.approvals import described, find
from mux.cli.terminal.waiting import ELICITATION, QUESTION, ApprovingError, result_for, script
from mux.core.policy.risk import COMMAND, FILES, PERMISSIONS
from mux.core.protocol.answers import fault


def approval(method: str = COMMAND, id: int = 1234, item: Any = None, **params: Any) -> Any:
    return {
        "id": id,
        "method": method,
        "threadId": "t",
        "ageSeconds": 75.5,
        "needs": None,
        "params": params,
        "item": item,
        "offeredTo": [{"id": 3, "name": "phone"}, {"id": 4, "name": None}],
    }


# --- Which one ------------------------------------------------------------------------------------


def test_an_id_may_be_its_last_digits_where_a_person_is_asked() -> None:
    pending = [approval(id=1234), approval(id=1235)]
    assert find(pending, "1234", whole=True)["id"] == 1234
    assert find(pending, "35", whole=False)["id"] == 1235
    with pytest.raises(ApprovingError, match="the whole id is wanted"):
        find(pending, "35", whole=True)


def test_an_ending_of_several_is_none_of_them_but_a_whole_id_is_one() -> None:
    pending = [approval(id=1234), approval(id=234)]
    assert find(pending, "234", whole=False)["id"] == 234
    with pytest.raises(ApprovingError, match="2 of those that wait end in 34"):
        find(pending, "34", whole=False)


@pytest.mark.parametrize("id", ["7", "", "x", "-4", "\x1b[2J"])
def test_an_id_of_none_is_an_error_that_cannot_drive_the_terminal(id: str) -> None:
    with pytest.raises(ApprovingError, match="no approval") as raised:
        find([approval()], id, whole=False)
    assert "\x1b" not in str(raised.value)


# --- What is said ---------------------------------------------------------------------------------

PROFILE = {"network": {"enabled": True}, "fileSystem": None}


@pytest.mark.parametrize(
    ("asked", "yes", "no"),
    [
        (approval(COMMAND), {"decision": "accept"}, {"decision": "decline"}),
        (approval(FILES), {"decision": "accept"}, {"decision": "decline"}),
        (
            approval("execCommandApproval"),
            {"decision": "approved"},
            {"decision": {"denied": {"rejection": "declined"}}},
        ),
        (
            approval(PERMISSIONS, permissions=PROFILE),
            {"permissions": {"network": {"enabled": True}}, "scope": "turn"},
            {"permissions": {}, "scope": "turn"},
        ),
        (approval(ELICITATION, mode="url"), {"action": "accept"}, {"action": "decline"}),
    ],
)
def test_yes_and_no_are_answers_that_the_broker_takes(asked: Any, yes: Any, no: Any) -> None:
    for word, result in (("approve", yes), ("decline", no)):
        assert result_for(asked, word) == result  # type: ignore[arg-type]
        offer = json.dumps({"params": asked["params"]}).encode()
        assert fault(asked["method"], offer, json.dumps(result).encode()) is None


@pytest.mark.parametrize(
    ("method", "word"),
    [
        (QUESTION, "approve"),
        (QUESTION, "decline"),
        (ELICITATION, "approve"),
        ("item/made/up", "approve"),
    ],
)
def test_what_takes_more_than_a_word_is_left_to_a_client(method: str, word: Any) -> None:
    with pytest.raises(ApprovingError, match="more than a yes or no"):
        result_for(approval(method, mode="form"), word)


# --- What is shown --------------------------------------------------------------------------------


def test_a_command_is_shown_with_its_directory_and_reason() -> None:
    asked = approval(command="rm -rf x", cwd="/work", reason="tidy up")
    assert described(asked) == [
        "1234  run rm -rf x",
        "  waiting 1 min, offered to phone #3, ? #4",
        "  thread: t",
        "  command: rm -rf x",
        "  directory: /work",
        "  reason: tidy up",
    ]


def test_files_are_named_though_the_request_does_not_name_them() -> None:
    changes = [{"path": "/a", "kind": {"type": "add"}}, {"path": "/b", "kind": {"type": "delete"}}]
    shown = described(approval(FILES, item={"changes": changes}, grantRoot="/"))
    assert shown[3:] == [
        "  file: add /a",
        "  file: delete /b",
        "  writes for the rest of the session under: /",
    ]


def test_nothing_that_is_asked_can_hide_from_the_eye_or_drive_the_terminal() -> None:
    command = "echo ok\n\x1b[2K\rrm -rf ~ \u202egnp.x"
    (line, more) = described(approval(command=command))[3:]
    assert line == "  command: echo ok"
    assert more == "    \\x1b[2K\\x0drm -rf ~ \\u202egnp.x"


def test_questions_permissions_and_a_network_are_shown() -> None:
    shown = "\n".join(
        described(
            approval(
                QUESTION,
                questions=[{"question": "Which one?"}],
                permissions=PROFILE,
                networkApprovalContext={"host": "example.org"},
                command=["ls", "-l"],
            )
        )
    )
    for wanted in ("question: Which one?", '"enabled": true', "example.org", "command: ls -l"):
        assert wanted in shown


# --- In a line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/bin/bash -lc 'make test'", "make test"),
        ("sh -c 'a; b'", "a; b"),
        ("bash -lc 'a' b", "bash -lc 'a' b"),  # b is an argument that the script may use
        ("/tmp/evil/mybash -lc 'a'", "/tmp/evil/mybash -lc 'a'"),
        ("rm 'x", "rm 'x"),
    ],
)
def test_a_shell_around_a_script_is_left_out_of_the_line(command: str, shown: str) -> None:
    assert script(command) == shown
