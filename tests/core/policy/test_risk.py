"""How risky a yes would be, from what an approval's params tell."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.policy.risk import ACTIONABLE, COMMAND, FILES, PERMISSIONS, risks
from mux.core.protocol.answers import fault, plain
from tests.core.stories import dumps

AT = "/home/ada/work"


def of_command(**params: Any) -> set[str]:
    return set(risks(COMMAND, dumps({"command": "make", "cwd": AT} | params), b"null", AT))


def of_files(*changes: Any, workspace: str = AT, **params: Any) -> set[str]:
    item = dumps({"id": "i", "type": "fileChange", "changes": list(changes)})
    return set(risks(FILES, dumps({"itemId": "i"} | params), item, workspace))


@pytest.mark.parametrize(
    ("params", "more"),
    [
        ({}, set()),
        ({"cwd": f"{AT}/sub/./dir"}, set()),
        ({"cwd": "/etc"}, {"outside-workspace"}),
        ({"cwd": f"{AT}/../other"}, {"outside-workspace"}),
        ({"cwd": f"{AT}er"}, {"outside-workspace"}),
        ({"cwd": None}, {"unknown"}),
        ({"cwd": "C:\\work"}, {"unknown"}),
        ({"command": None}, {"unknown"}),
        ({"kind": "humanCommand"}, {"unknown"}),
        ({"networkApprovalContext": {"host": "x.org", "protocol": "https"}}, {"network"}),
        ({"proposedNetworkPolicyAmendments": [{"host": "x"}]}, {"network"}),
        ({"additionalPermissions": {"network": {"enabled": True}}}, {"network"}),
        ({"additionalPermissions": {"fileSystem": {"write": ["/"]}}}, {"outside-workspace"}),
        ({"additionalPermissions": {"camera": True}}, {"unknown"}),
    ],
)
def test_a_command_is_always_taken_for_one_without_a_sandbox(
    params: dict[str, Any], more: set[str]
) -> None:
    assert of_command(**params) == {"escalated", *more}


def test_files_within_the_workspace_are_no_risk() -> None:
    assert of_files({"path": f"{AT}/new.txt", "kind": {"type": "add"}}) == set()


@pytest.mark.parametrize(
    ("changes", "params", "found"),
    [
        ([], {}, {"unknown"}),
        ([{"path": "new.txt"}], {}, {"unknown"}),
        (["new.txt"], {}, {"unknown"}),
        ([{"path": f"{AT}/a"}, {"path": "/etc/passwd"}], {}, {"outside-workspace"}),
        ([{"path": f"{AT}/a"}], {"grantRoot": AT}, {"outside-workspace"}),
        (
            [{"path": f"{AT}/a", "kind": {"type": "update", "move_path": "/etc/cron.d/a"}}],
            {},
            {"outside-workspace"},
        ),
    ],
)
def test_other_files_are(changes: list[Any], params: dict[str, Any], found: set[str]) -> None:
    assert of_files(*changes, **params) == found


def test_without_a_workspace_nothing_is_within_it() -> None:
    assert of_files({"path": "/a"}, workspace="") == {"unknown"}
    assert of_files({"path": "/a"}, workspace="/") == {"outside-workspace"}
    assert risks(FILES, b"{}", b"null", AT) == ("unknown",)


def test_permissions_by_what_they_are() -> None:
    def of(permissions: Any) -> set[str]:
        return set(risks(PERMISSIONS, dumps({"permissions": permissions}), b"null", AT))

    assert of({"network": {"enabled": True}, "fileSystem": None}) == {"network"}
    assert of({"fileSystem": {"read": ["/x"]}}) == {"outside-workspace"}
    assert of({}) == of(None) == {"unknown"}


def test_what_cannot_be_read_or_is_not_known_is_risky() -> None:
    assert risks(COMMAND, b"[]", b"null", AT) == ("unknown",)
    assert risks("item/of/tomorrow", b"{}", b"null", AT) == ("unknown",)


@pytest.mark.parametrize("method", sorted(ACTIONABLE))
@pytest.mark.parametrize("yes", [True, False])
def test_the_plain_answers_are_valid(method: str, yes: bool) -> None:
    asked = {"permissions": {"network": {"enabled": True}, "fileSystem": None}}
    offer = dumps({"method": method, "id": 1, "params": asked})
    answer = plain(method, offer, yes=yes)
    assert answer is not None
    assert fault(method, offer, dumps(answer)) is None
    if method == PERMISSIONS:
        given = {"network": {"enabled": True}} if yes else {}
        assert answer == {"permissions": given, "scope": "turn"}


def test_a_question_has_no_plain_answer() -> None:
    assert plain("item/tool/requestUserInput", b'{"params":{}}', yes=True) is None
