"""``mux/inbox``, ``mux/usage``: what needs a person, every thread, and what was used.

A field that is ``UNSET`` isn't sent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from mux.core.extension.approvals import FileChange, Vote
from mux.core.extension.parts import Described, method, notification
from mux.core.extension.queue import By, Held
from mux.core.policy.notice import Risk
from mux.core.protocol.envelope.text_limits import Name

MOST_PAGE = 100
"""Threads of one page. The app-server reads each from its database."""

FIRST_PAGE = 20
"""Threads of a page, if the client doesn't say: what a phone shows, and a little more."""

MOST_NAMED = 100
"""Threads named in one ``mux/usage``."""

NeedKind = Literal["approval", "question", "queue"]
TurnEnd = Literal["completed", "failed", "interrupted"]
LineOf = Literal["agent", "reasoning", "command", "output", "files", "tool", "user"]


class InboxParams(msgspec.Struct):
    """Params of ``mux/inbox``.

    ``search``: words of the title. ``follow``: true to be told of changes from now on, false to be
    told no more; without it that stays as it is. ``cursor``: the ``nextCursor`` of the page before.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PAGE)] = FIRST_PAGE
    cursor: str | None = None
    archived: bool = False
    search: Name | None = None
    follow: bool | None = None


class Need(msgspec.Struct, kw_only=True):
    """A need: one thing that waits for a person.

    ``key`` tells it from others, and stays. ``rootThreadId``: the thread that people see; another
    one than ``threadId`` for a sub-agent. ``title``, ``directory``: the root thread's; empty if
    unknown. Fields from ``id`` to ``waitsFor`` are there for approvals and questions, those to
    ``risks`` for approvals (``mux/approvals/list`` has their diffs), ``text`` for questions, and
    the rest for a queue that is held.
    """

    key: str
    kind: NeedKind
    threadId: str | None
    rootThreadId: str | None
    title: str
    directory: str
    ageSeconds: float
    id: int | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    turnId: str | msgspec.UnsetType | None = msgspec.UNSET
    itemId: str | msgspec.UnsetType | None = msgspec.UNSET
    needs: str | msgspec.UnsetType | None = msgspec.UNSET
    policy: str | msgspec.UnsetType = msgspec.UNSET
    votes: list[Vote] | msgspec.UnsetType = msgspec.UNSET
    waitsFor: str | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType | None = msgspec.UNSET
    command: str | msgspec.UnsetType | None = msgspec.UNSET
    cwd: str | msgspec.UnsetType | None = msgspec.UNSET
    files: list[FileChange] | msgspec.UnsetType = msgspec.UNSET
    risks: list[Risk] | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    held: Held | msgspec.UnsetType = msgspec.UNSET
    queued: int | msgspec.UnsetType = msgspec.UNSET


class Line(msgspec.Struct, frozen=True):
    """The last line of a thread, and the kind of item that it is from: the agent's text, a
    command's output…
    """

    text: str
    of: LineOf


class Running(msgspec.Struct):
    """The turn that runs. ``by``: the client that began it; null if none here did."""

    id: str
    runningSeconds: float
    by: By | None


class Ended(msgspec.Struct, frozen=True):
    """The turn that ended last."""

    id: str
    status: TurnEnd


class InboxThread(msgspec.Struct, kw_only=True):
    """A thread. Times ending in ``At`` are Unix seconds, null if unknown.

    ``title``: empty if it has none. ``preview``: the user's first words. ``readState``: codex's own
    (see ``thread/readState/update``); ``unread``: what it says. ``turn``, ``lastTurn``: null if
    none runs, or if none has ended since the broker knows of the thread. ``lastLine`` and ``usage``
    (codex's ``ThreadTokenUsage``) are null likewise. ``needs``: the number of needs under the
    thread.
    """

    id: str
    title: str
    preview: str
    directory: str
    status: str
    archived: bool
    createdAt: float | None
    updatedAt: float | None
    recencyAt: float | None
    unread: bool
    readState: Any
    lastLine: Line | None
    turn: Running | None
    lastTurn: Ended | None
    queued: int
    held: Held | None
    needs: int
    usage: Any


class ThreadChange(msgspec.Struct, kw_only=True):
    """The fields of a thread that changed, and no others.

    A thread that this connection has had on no page and in no change comes whole.
    """

    id: str
    title: str | msgspec.UnsetType = msgspec.UNSET
    preview: str | msgspec.UnsetType = msgspec.UNSET
    directory: str | msgspec.UnsetType = msgspec.UNSET
    status: str | msgspec.UnsetType = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    createdAt: float | msgspec.UnsetType | None = msgspec.UNSET
    updatedAt: float | msgspec.UnsetType | None = msgspec.UNSET
    recencyAt: float | msgspec.UnsetType | None = msgspec.UNSET
    unread: bool | msgspec.UnsetType = msgspec.UNSET
    readState: Any = msgspec.UNSET
    lastLine: Line | msgspec.UnsetType | None = msgspec.UNSET
    turn: Running | msgspec.UnsetType | None = msgspec.UNSET
    lastTurn: Ended | msgspec.UnsetType | None = msgspec.UNSET
    queued: int | msgspec.UnsetType = msgspec.UNSET
    held: Held | msgspec.UnsetType | None = msgspec.UNSET
    needs: int | msgspec.UnsetType = msgspec.UNSET
    usage: Any = msgspec.UNSET


class InboxAppServer(msgspec.Struct, frozen=True):
    """The app-server, as in ``mux/status``."""

    state: str
    version: str


class Inbox(msgspec.Struct, kw_only=True):
    """A page of the inbox.

    ``needs``: all needs, the oldest first, on every page. ``threads``: those with the newest
    activity first. The first page also has running and fresh threads that the app-server doesn't
    list. A later page may repeat a thread. ``limits``: the account's, by limit id (empty for none),
    as the app-server last told them; codex's ``RateLimitSnapshot``. ``host``: the name of the
    machine.
    """

    revision: int
    host: str
    appServer: InboxAppServer
    needs: list[Need]
    threads: list[InboxThread]
    nextCursor: str | None
    limits: dict[str, Any]


class InboxChanged(msgspec.Struct, kw_only=True):
    """The difference to what you had.

    ``needs``: new needs and changed ones, whole. ``needsGone``: keys of needs that are over.
    ``threadsGone``: ids of threads that were archived, deleted, or are shown to you no more.
    ``limits``: only those that changed.
    """

    revision: int
    needs: list[Need]
    needsGone: list[str]
    threads: list[ThreadChange]
    threadsGone: list[str]
    limits: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    appServer: InboxAppServer | msgspec.UnsetType = msgspec.UNSET


class UsageParams(msgspec.Struct):
    """Params of ``mux/usage``.

    ``threadIds``: these threads alone; null: all that are known to have used something.
    """

    threadIds: Annotated[list[Name], msgspec.Meta(max_length=MOST_NAMED)] | None = None


class Usage(msgspec.Struct):
    """The usage, as the app-server last told it.

    ``threads``: codex's ``ThreadTokenUsage`` by thread.
    """

    threads: dict[str, Any]
    limits: dict[str, Any]


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
_TURN = "0199f3a2-7777-7a10-8f6e-3d2b1c0a9e87"
_TOKENS = {
    "totalTokens": 15,
    "inputTokens": 10,
    "cachedInputTokens": 0,
    "outputTokens": 5,
    "reasoningOutputTokens": 0,
}
_USED = {"total": _TOKENS, "last": _TOKENS, "modelContextWindow": 258400}
_LIMITS = {"codex": {"limitId": "codex", "primary": {"usedPercent": 12}, "secondary": None}}
_NEED = Need(
    key="request/1880000000000001",
    kind="approval",
    threadId=_THREAD,
    rootThreadId=_THREAD,
    title="Fix the build",
    directory="/home/ada/app",
    ageSeconds=4.2,
    id=1880000000000001,
    method="item/commandExecution/requestApproval",
    turnId=_TURN,
    itemId="call_1",
    needs=None,
    policy="first",
    votes=[],
    waitsFor="anyone who may approve",
    reason="the tests need the network",
    command="/bin/bash -lc 'make test'",
    cwd="/home/ada/app",
    files=[],
    risks=["escalated"],
)
_READ = {"firstUnread": {"type": "turn", "turnId": _TURN}, "revision": "4e4bc202"}
_CARD = InboxThread(
    id=_THREAD,
    title="Fix the build",
    preview="fix the build, please",
    directory="/home/ada/app",
    status="active",
    archived=False,
    createdAt=1790000000,
    updatedAt=1790000400,
    recencyAt=1790000400,
    unread=True,
    readState=_READ,
    lastLine=Line("make: *** [Makefile:12: test] Error 2", "output"),
    turn=Running(_TURN, 12.5, By(7, "codex-tui", "local")),
    lastTurn=None,
    queued=1,
    held=None,
    needs=1,
    usage=_USED,
)
_APP_SERVER = InboxAppServer("ready", "0.171.0")

METHODS: dict[str, Described] = {
    "mux/inbox": method(
        "What needs a person, and a page of the threads; with `follow`, changes as they come.",
        InboxParams(limit=20, follow=True),
        Inbox(
            revision=1,
            host="box",
            appServer=_APP_SERVER,
            needs=[_NEED],
            threads=[_CARD],
            nextCursor="2026-09-21T14:13:20.235Z",
            limits=_LIMITS,
        ),
    ),
    "mux/usage": method(
        "Tokens by thread, and the account's limits, as the app-server last told them.",
        UsageParams([_THREAD]),
        Usage({_THREAD: _USED}, _LIMITS),
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/inbox/changed": notification(
        "What changed in the inbox; at most four times a second, to those that follow it.",
        InboxChanged(
            revision=2,
            needs=[],
            needsGone=["request/1880000000000001"],
            threads=[ThreadChange(id=_THREAD, needs=0, lastLine=Line("All tests pass.", "agent"))],
            threadsGone=[],
        ),
    ),
}
