"""``mux/status`` and ``mux/restart``: the runtime as its operator sees it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mux.core.extension import queue, tailnet
from mux.core.extension.approvals import Vote
from mux.core.extension.parts import Described, Nothing, method
from mux.core.extension.queue import Held
from mux.core.extension.tailnet import TailnetShown
from mux.core.protocol.scope import Scope

# ── mux/restart ───────────────────────────────────────────────────────────────────────────────────


class RestartParams(msgspec.Struct):
    """Params of ``mux/restart``.

    ``now``: true to restart without waiting until nothing runs. ``broker``: true to restart the
    broker, not the app-server. There is no answer then: all connections are closed with the code
    1012.
    """

    now: bool = False
    broker: bool = False


class Restarted(msgspec.Struct):
    """The new process is ready. ``generation``: its number. ``version``: codex's."""

    generation: int
    version: str


# ── mux/status ────────────────────────────────────────────────────────────────────────────────────


class SettingsShown(msgspec.Struct):
    """The settings file, compared with the settings that the broker runs with.

    ``file``: the path of the file, or null if there is none. ``changed``: keys that were changed
    since; they hold once the broker is started again. ``trouble``: why the file can't be used now,
    or null. ``authMode``: how WebSocket clients prove who they are, as the broker was started; or
    null.
    """

    file: str | None
    changed: list[str]
    trouble: str | None
    authMode: str | None


class BrokerShown(msgspec.Struct):
    """The broker's own process.

    ``supervisor``: the process id of ``appmux serve``, which outlives the broker. ``handovers``:
    the number of brokers before it under the same supervisor. ``handoverTrouble``: why the next
    broker couldn't take this one's app-server over, or why this one couldn't.
    """

    version: str
    pid: int
    supervisor: int | None
    handovers: int
    handoverTrouble: str | None
    uptimeSeconds: float
    settings: SettingsShown


class LifeEndShown(msgspec.Struct):
    """The latest end of an app-server process. ``reason``: for people; null if it was planned."""

    generation: int
    secondsAgo: float
    reason: str | None


class AppServerShown(msgspec.Struct):
    """The app-server.

    ``outdated``: true if the binary on disk is another than the one that runs. ``lastWords``: the
    last lines of its stderr. ``restartWaitsFor``: what a planned restart waits for, in words; null
    if none is planned. ``nextStartSeconds``: seconds until the next start while it is down, else
    null. ``schemaVersion``: the version of codex whose list of what is experimental holds; null:
    none is known. ``lastEnd``: why there was a process before this one; null for the first.
    """

    version: str
    state: Literal["starting", "initializing", "resuming", "ready", "down"]
    generation: int
    nextStartSeconds: float | None
    uptimeSeconds: float
    lastEnd: LifeEndShown | None
    requestsInFlight: int
    requestsWaiting: int
    requestsQueued: int
    restartWaitsFor: list[str]
    pid: int | None
    outdated: bool
    schemaVersion: str | None
    lastWords: list[str]


class JournalShown(msgspec.Struct):
    """The journal: its epoch, its head, and the earliest cursor that can be replayed."""

    epoch: str
    seq: int
    earliest: int


class StoreShown(msgspec.Struct):
    """The journal on disk. ``trouble``: why nothing is written, or null."""

    path: str
    epoch: str
    nextSeq: int
    earliest: int
    bytes: int
    unwrittenEntries: int
    trouble: str | None
    lastWriteMilliseconds: float


class AuditShown(msgspec.Struct):
    """The audit log.

    ``digest``: of the last record. ``trouble``: why nothing is written, or null.
    """

    path: str
    records: int
    digest: str
    bytes: int
    unwrittenRecords: int
    lastWriteMilliseconds: float
    trouble: str | None


class DevicesShown(msgspec.Struct):
    """The paired devices. ``trouble``: why a revocation isn't on the disk yet, or null."""

    count: int
    trouble: str | None


class FailuresShown(msgspec.Struct):
    """Failed authentications, in all and by address (those that are remembered)."""

    total: int
    addresses: dict[str, int]


class NoticesShown(msgspec.Struct):
    """The notices.

    ``endpoints``: the number of endpoints by service. ``pushes``: the number of pushes by state.
    ``standing``: the number of notices that aren't over. ``oldestQueuedSeconds``: how long the
    oldest push has waited to be sent, or null. ``unheard``: names of devices whose page would have
    confirmed the last pushes, and didn't.
    """

    endpoints: dict[str, int]
    pushes: dict[str, int]
    oldestQueuedSeconds: float | None
    standing: int
    trouble: str | None
    unheard: list[str]


class LogShown(msgspec.Struct):
    """The log on stderr.

    ``droppedLines``: the number lost so far. ``trouble``: why, while it goes on; or null.
    """

    droppedLines: int
    trouble: str | None


class ListenerShown(msgspec.Struct):
    """An address where clients may connect.

    ``openDoor``: true if it is over TCP and nobody is asked for a token.
    """

    url: str
    kind: Literal["ws", "unix"]
    openDoor: bool


class OverridesShown(msgspec.Struct):
    """The overrides of a client's command line.

    ``values`` hold for the client's threads, by key of the configuration. ``ignored`` names those
    that don't hold.
    """

    values: dict[str, Any]
    ignored: list[str]


class ClientShown(msgspec.Struct):
    """A connection.

    ``behind``: the number of journal entries that it hasn't been given yet, null if it is live.
    ``droveSeconds``: seconds since it last made a thread work, null for never. ``pid``: its
    process, where the system tells it (on a unix socket, on Linux). ``person``: true if a person
    sits before it, as far as that is known. ``overrides``: those of its command line, or null.
    """

    id: int
    state: Literal["attached", "ready"]
    name: str | None
    version: str | None
    principal: str
    principalKind: Literal["local-user", "capability-token", "jwt", "device", "open"]
    scopes: list[Scope]
    transport: str
    peer: str
    pid: int | None
    sinceSeconds: float
    droveSeconds: float | None
    threads: list[str]
    behind: int | None
    overrides: OverridesShown | None
    person: bool
    bytesOwed: int


class ThreadShown(msgspec.Struct):
    """A thread that is loaded or followed, with its running turn and the ids of its followers.

    ``parent``: the thread that spawned it. ``turnBy``: the client that began the running turn.
    ``queued``: the number of turns that wait behind it. ``held``: why they stand still.
    ``watchedBy``: the client by which a person looks at it who may act; null if nobody is known to.
    """

    id: str
    title: str | None
    directory: str | None
    parent: str | None
    status: str
    turn: str | None
    turnBy: queue.By | None
    followers: list[int]
    queued: int
    held: Held | None
    watchedBy: int | None


class ServerRequestShown(msgspec.Struct):
    """A server request that isn't over. ``offeredTo`` and the like are ids of clients."""

    id: int
    method: str
    thread: str | None
    ageSeconds: float
    offeredTo: list[int]
    abstained: list[int]
    answeredBy: int | None
    policy: str
    waitsFor: str
    votes: list[Vote]


class Status(msgspec.Struct):
    """The runtime. ``asker``: the id of the client that asked."""

    asker: int
    broker: BrokerShown
    appServer: AppServerShown
    store: StoreShown
    audit: AuditShown
    devices: DevicesShown
    notices: NoticesShown
    failedAuthentications: FailuresShown
    log: LogShown
    listeners: list[ListenerShown]
    tailnet: TailnetShown
    journal: JournalShown
    clients: list[ClientShown]
    threads: list[ThreadShown]
    serverRequests: list[ServerRequestShown]


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

_EPOCH = "1b0c3d5e7f90a2b4"
_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"

_STATUS = Status(
    asker=7,
    broker=BrokerShown(
        "0.1.0",
        4711,
        4709,
        0,
        None,
        86400.2,
        SettingsShown("/home/ada/.config/appmux/config.toml", [], None, "device-token"),
    ),
    appServer=AppServerShown(
        version="0.163.0",
        state="ready",
        generation=2,
        nextStartSeconds=None,
        uptimeSeconds=3600.5,
        lastEnd=LifeEndShown(1, 3602.0, "killed by SIGKILL"),
        requestsInFlight=1,
        requestsWaiting=0,
        requestsQueued=0,
        restartWaitsFor=[],
        pid=4712,
        outdated=False,
        schemaVersion="0.163.0",
        lastWords=[],
    ),
    store=StoreShown(
        "/home/ada/.local/state/appmux/journal.sqlite", _EPOCH, 4712, 12, 65536, 0, None, 0.8
    ),
    audit=AuditShown(
        "/home/ada/.local/state/appmux/audit", 34, "5f4dcc3b5aa765d6", 9120, 0, 0.4, None
    ),
    devices=DevicesShown(3, None),
    notices=NoticesShown({"ntfy": 1}, {"sent": 12}, None, 1, None, []),
    failedAuthentications=FailuresShown(2, {"192.0.2.7": 2}),
    log=LogShown(0, None),
    listeners=[ListenerShown("ws://127.0.0.1:4500", "ws", False)],
    tailnet=tailnet.SHOWN,
    journal=JournalShown(_EPOCH, 4711, 12),
    clients=[
        ClientShown(
            id=7,
            state="ready",
            name="desk",
            version="1.2",
            principal="local",
            principalKind="local-user",
            scopes=["admin", "approve", "drive", "observe"],
            transport="unix",
            peer="unix",
            pid=4801,
            sinceSeconds=12.0,
            droveSeconds=3.5,
            threads=[_THREAD],
            behind=None,
            overrides=OverridesShown({"approval_policy": "on-request"}, ["-c model"]),
            person=True,
            bytesOwed=0,
        )
    ],
    threads=[
        ThreadShown(
            id=_THREAD,
            title="Fix the parser",
            directory="/home/ada/src/app",
            parent=None,
            status="active",
            turn="0199f3a2-6001-7f20-9a11-0c0d0e0f1011",
            turnBy=queue.By(7, "desk", "local"),
            followers=[7],
            queued=0,
            held=None,
            watchedBy=7,
        )
    ],
    serverRequests=[
        ServerRequestShown(
            1880000000000001,
            "item/commandExecution/requestApproval",
            _THREAD,
            4.2,
            [7],
            [],
            None,
            policy="first",
            waitsFor="anyone who may approve",
            votes=[],
        )
    ],
)

METHODS: dict[str, Described] = {
    "mux/status": method(
        "The runtime as `appmux status --json` shows it; no `initialize` needed.",
        Nothing(),
        _STATUS,
    ),
    "mux/restart": method(
        "A new app-server process; answered when it is ready.",
        RestartParams(now=True),
        Restarted(2, "0.169.0"),
    ),
}

NOTIFICATIONS: dict[str, Described] = {}
