"""``mux/thread/digest``: what happened on a thread since a cursor."""

from __future__ import annotations

import msgspec

from mux.core.extension.approvals import Decided, Decider, FileChange
from mux.core.extension.following import Cursor
from mux.core.extension.parts import Described, method
from mux.core.protocol.envelope.text_limits import Name


class DigestParams(msgspec.Struct):
    """Params of ``mux/thread/digest``.

    ``after``: your cursor; null: from as far back as the journal reaches.
    """

    threadId: Name
    after: Cursor | None = None


class DigestTurn(msgspec.Struct, kw_only=True):
    """A turn.

    ``said``: the user's first words. ``lastLine``: the agent's last line. ``error``: its text, or
    null.

    ``status``: completed, failed, interrupted or inProgress. ``seconds``: null if unknown.
    """

    id: str
    status: str
    said: str
    lastLine: str
    error: str | None
    seconds: float | None


class DigestFile(FileChange, kw_only=True):
    """A file that was changed.

    ``added`` and ``removed`` count the lines of all its changes, ``edits`` the changes.
    """

    edits: int


class FailedCommand(msgspec.Struct, kw_only=True):
    """A command that failed.

    ``exitCode``: null if it never had one. ``lastLine``: the last line of its output.
    """

    turnId: str
    command: str
    cwd: str | None
    exitCode: int | None
    lastLine: str


class DigestCommands(msgspec.Struct):
    """The number of commands that ran to their end, and the commands that failed."""

    ran: int
    failed: list[FailedCommand]


class Digest(msgspec.Struct, kw_only=True):
    """A summary of what happened on the thread.

    ``seq``: the place up to which it tells: your next cursor. ``epoch``: the epoch in which that
    counts. ``complete: false``: the journal doesn't reach back to your cursor, or there is more
    than is told; the summary then begins where the journal does, and has the latest of each kind.
    ``waiting``: the number of approvals and questions of the thread that wait now. ``errors``:
    texts for people.
    """

    complete: bool
    epoch: str
    seq: int
    turns: list[DigestTurn]
    files: list[DigestFile]
    commands: DigestCommands
    decisions: list[Decided]
    waiting: int
    errors: list[str]


_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
_TURN = "0199f3a2-7777-7a10-8f6e-3d2b1c0a9e87"
_EPOCH = "1b0c3d5e7f90a2b4"

METHODS: dict[str, Described] = {
    "mux/thread/digest": method(
        "What happened on a thread since a cursor, out of the journal.",
        DigestParams(_THREAD, Cursor(_EPOCH, 4711)),
        Digest(
            complete=True,
            epoch=_EPOCH,
            seq=4999,
            turns=[
                DigestTurn(
                    id=_TURN,
                    status="completed",
                    said="fix the build, please",
                    lastLine="The build is green again.",
                    error=None,
                    seconds=81.5,
                )
            ],
            files=[
                DigestFile(
                    path="/home/ada/app/Makefile",
                    kind="update",
                    movedTo=None,
                    added=12,
                    removed=3,
                    edits=2,
                )
            ],
            commands=DigestCommands(
                7,
                [
                    FailedCommand(
                        turnId=_TURN,
                        command="/bin/bash -lc 'make test'",
                        cwd="/home/ada/app",
                        exitCode=2,
                        lastLine="make: *** [Makefile:12: test] Error 2",
                    )
                ],
            ),
            decisions=[
                Decided(
                    id=1880000000000001,
                    threadId=_THREAD,
                    turnId=_TURN,
                    itemId="call_1",
                    method="item/commandExecution/requestApproval",
                    about="make test",
                    decision="accept",
                    by=Decider(7, "desk", "local"),
                    how="client",
                    waitedSeconds=4.2,
                )
            ],
            waiting=0,
            errors=[],
        ),
    )
}
