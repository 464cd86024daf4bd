"""``mux/approvals/*`` and ``mux/refused``: what waits for a person's word."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mux.core.extension.parts import Described, method, notification
from mux.core.policy.notice import Risk
from mux.core.protocol.scope import Scope


class FileChange(msgspec.Struct, kw_only=True):
    """The change of one file, with the number of lines added and removed.

    ``kind``: add, delete or update. ``movedTo``: the path that an update moves the file to, or
    null. ``diff``: the hunks of a unified diff for an update, else the file's lines. ``cut``: true
    if the diff is longer than that. ``mux/inbox`` leaves these two out.
    """

    path: str
    kind: str
    movedTo: str | None
    added: int
    removed: int
    diff: str | msgspec.UnsetType = msgspec.UNSET
    cut: bool | msgspec.UnsetType = msgspec.UNSET


class OfferedTo(msgspec.Struct):
    """A client that was offered the request. ``name`` is null for a client that gave none."""

    id: int
    name: str | None


class Vote(msgspec.Struct):
    """A yes that didn't decide: who gave it, and what it would allow. Texts are for people.

    ``counts``: false while the owner of the turn is waited for, or a person who looks. ``machine``:
    true if a program gave the vote by itself (see "Machines").
    """

    client: int | None
    name: str | None
    principal: str
    decision: str
    ageSeconds: float
    counts: bool
    machine: bool


class Approval(msgspec.Struct):
    """A server request that waits.

    ``params``: the request's own. ``item``: the item that the request is about, or null. ``needs``:
    the capability that a client must have declared to answer, or null. ``policy`` (``first``,
    ``owner``, ``local``, ``quorum of 2``, several joined by ``and``) and ``waitsFor`` are texts for
    people.

    The fields from ``title`` on are what a person judges by, read from ``params`` and ``item``.
    ``rootThreadId``: the thread that people see, with its ``title`` and ``directory``. ``command``,
    ``cwd``: the command as it will run, and where. ``files``: the diff of each file. ``risks``: the
    classes of risk. ``choices``: what may be answered as ``decision`` (as a form's ``action``).
    ``text``: the first question of a request for words.
    """

    id: int
    method: str
    threadId: str | None
    ageSeconds: float
    needs: str | None
    policy: str
    waitsFor: str
    votes: list[Vote]
    params: Any
    item: Any
    offeredTo: list[OfferedTo]
    title: str
    directory: str
    rootThreadId: str | None
    turnId: str | None
    itemId: str | None
    reason: str | None
    command: str | None
    cwd: str | None
    files: list[FileChange]
    risks: list[Risk]
    choices: list[Any]
    text: str | None


class ListParams(msgspec.Struct):
    """Params of ``mux/approvals/list``. ``id``: list this approval alone; null: list all."""

    id: int | None = None


class Approvals(msgspec.Struct):
    """All approvals that wait, the oldest first."""

    approvals: list[Approval]


class AnswerParams(msgspec.Struct):
    """Params of ``mux/approvals/answer``.

    ``result``: the answer that a client gives to which the request was offered.
    """

    id: int
    result: Any


class Answered(msgspec.Struct):
    """The answer counts.

    ``decided``: false if the policy asks for more; ``waitsFor`` then says for what.
    """

    id: int
    method: str
    threadId: str | None
    decided: bool
    waitsFor: str | None


class Changed(msgspec.Struct):
    """An approval that was offered to you, and whose policy isn't ``first``."""

    id: int
    threadId: str | None
    policy: str
    waitsFor: str
    votes: list[Vote]


class Decider(msgspec.Struct, frozen=True):
    """The client or device that decided; it may have left.

    ``client`` is null for a device that answered a notice.
    """

    client: int | None
    name: str | None
    principal: str


class Decided(msgspec.Struct, kw_only=True):
    """The end of a server request.

    ``decision``: the word of the decision; the answers to a question are never told. ``about``: the
    command, files or first question, in one line. ``how``: ``client`` and ``notice``: by the answer
    of a client, or of a notice on a lock screen; ``votes``: by votes that had to wait;
    ``abstained``: nobody was left who could answer; ``withdrawn``: the turn, thread or app-server
    ended.
    """

    id: int
    threadId: str
    turnId: str | None
    itemId: str | None
    method: str
    about: str
    decision: str
    by: Decider | None
    how: Literal["client", "notice", "votes", "abstained", "withdrawn"]
    waitedSeconds: float


class Refused(msgspec.Struct):
    """Your answer to the server request doesn't count. ``why``: the reason, for a person.

    ``needs``: the scope that you lack, or ``local``: only a client on the broker's host may say
    yes.
    """

    requestId: int
    needs: Scope | Literal["local"]
    has: list[Scope]
    why: str


_ID = 1880000000000001
_METHOD = "item/commandExecution/requestApproval"
_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"

_TURN = "0199f3a2-7777-7a10-8f6e-3d2b1c0a9e87"
_POLICY = "quorum of 2"
_WAITS_FOR = "a yes of 2 principals, 1 so far"
_VOTE = Vote(7, "desk", "local", "accept", 1.5, counts=True, machine=False)

METHODS: dict[str, Described] = {
    "mux/approvals/list": method(
        "What waits for a person's word; no `initialize` needed.",
        ListParams(),
        Approvals(
            [
                Approval(
                    id=_ID,
                    method=_METHOD,
                    threadId=_THREAD,
                    ageSeconds=4.2,
                    needs=None,
                    policy=_POLICY,
                    waitsFor=_WAITS_FOR,
                    votes=[_VOTE],
                    params={"threadId": _THREAD, "itemId": "call_1", "command": "make test"},
                    item={"id": "call_1", "type": "commandExecution", "command": "make test"},
                    offeredTo=[OfferedTo(7, "desk")],
                    title="Fix the build",
                    directory="/home/ada/app",
                    rootThreadId=_THREAD,
                    turnId=_TURN,
                    itemId="call_1",
                    reason=None,
                    command="make test",
                    cwd="/home/ada/app",
                    files=[],
                    risks=["escalated"],
                    choices=["accept", "acceptForSession", "decline", "cancel"],
                    text=None,
                )
            ]
        ),
    ),
    "mux/approvals/answer": method(
        "Answer one, offered to you or not; its policy says whether that decides.",
        AnswerParams(_ID, {"decision": "decline"}),
        Answered(_ID, _METHOD, _THREAD, decided=True, waitsFor=None),
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/refused": notification(
        "You answered a server request that you may not answer so.",
        Refused(_ID, "approve", ["observe"], "it needs the scope `approve`"),
    ),
    "mux/approvals/decided": notification(
        "A server request of a thread that you follow is over; numbered, so it is replayed.",
        Decided(
            id=_ID,
            threadId=_THREAD,
            turnId=_TURN,
            itemId="call_1",
            method=_METHOD,
            about="make test",
            decision="accept",
            by=Decider(7, "desk", "local"),
            how="client",
            waitedSeconds=4.2,
        ),
    ),
    "mux/approvals/changed": notification(
        "What an approval waits for, when it is offered to you and when somebody votes.",
        Changed(_ID, _THREAD, _POLICY, _WAITS_FOR, [_VOTE]),
    ),
}
