"""Threads that the app-server can't resume: fresh ones (no turn yet) and ephemeral ones.

``thread/resume`` of such a thread fails natively ("no rollout found"), even while it is loaded and
runs. The broker has seen its ``thread/start`` answer and everything since. It answers from that,
and from what the app-server still tells of the thread when asked (``local_resume``). A fork is on
disk from its first moment, unless it is ephemeral. The answer to an ephemeral fork leaves out the
turns that come from its source, and these are read from the source.

``threads`` passes on the thread's notifications; ``local_resume`` makes the answers.
"""

from __future__ import annotations

import msgspec

from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.turns.running_turn import RunningTurn, turn_id

HISTORY_BYTES = 16 * 1024 * 1024
"""Bytes of an ephemeral thread's turns; past it the oldest are forgotten."""

_SHOWN_AS = {
    "activePermissionProfile": "activePermissionProfile",
    "approvalPolicy": "approvalPolicy",
    "approvalsReviewer": "approvalsReviewer",
    "collaborationMode": "collaborationMode",
    "cwd": "cwd",
    "disabledPluginIds": "disabledPluginIds",
    "effort": "reasoningEffort",
    "model": "model",
    "modelProvider": "modelProvider",
    "multiAgentMode": "multiAgentMode",
    "sandboxPolicy": "sandbox",
    "serviceTier": "serviceTier",
}
"""A thread's settings: their names in ``thread/settings/updated`` → those in ``thread/resume``."""

_OF_THREAD = ("cwd", "model", "modelProvider", "reasoningEffort")
"""The settings that ``thread`` in a ``thread/resume`` repeats."""


class Source(Part):
    """The thread that an ephemeral fork was made of, and how much of it the fork has.

    If neither ``last`` nor ``before`` was asked for, the fork has what is older than ``fork``.
    """

    thread: str
    """The source's id."""
    fork: str
    """The fork's id."""
    last: str | None = None
    """The source's last turn that the fork has."""
    before: str | None = None
    """The source's first turn that the fork doesn't have."""

    def inherited(self, turns: list[dict[str, bytes]]) -> list[bytes]:
        """Return the source's turns that the fork has, as JSON. Both are ordered by age."""
        ids = [_id(turn) for turn in turns]
        if self.last in ids:
            inherited = turns[: ids.index(self.last) + 1]
        elif self.before in ids:
            inherited = turns[: ids.index(self.before)]
        else:
            # Ids are UUIDs that begin with the moment (version 7): a later one is greater.
            inherited = [turn for turn, id in zip(turns, ids, strict=True) if id < self.fork]
        for turn in inherited:
            if turn.get("status") == b'"inProgress"':  # the fork was made in the middle of it
                turn["status"] = b'"interrupted"'
        return [jsonrpc.write(turn) for turn in inherited]


class UnsavedThread(Part):
    """A thread's beginning, and what the broker has seen of it since."""

    result: dict[str, bytes]
    """The result of its ``thread/start`` or ``fork``, as fields."""
    thread: dict[str, bytes]
    """The fields of ``thread`` in that."""
    ephemeral: bool
    turns: dict[str, bytes]
    """Its turns by id, as JSON."""
    fresh: bool = True
    """True until its first turn begins."""
    young: bool = True
    """True until its first turn ends."""
    source: Source | None = None
    """Where the turns are that it was made with; None if they stand in ``turns``."""
    preview: bytes = b'""'
    """The user's first words, as JSON: the app-server shows them for a thread in lists."""

    @property
    def only_here(self) -> bool:
        """Return whether only the broker can tell of the thread."""
        return self.fresh or self.ephemeral

    @property
    def for_title(self) -> bool:
        """Return whether a TUI made the thread to have a title made (see ``shared_titles``)."""
        return self.ephemeral and self.thread.get("threadSource") == b'"thread_title"'

    @property
    def is_complete(self) -> bool:
        """Return whether the broker has seen everything of the thread."""
        return self.young or self.ephemeral

    def apply(self, method: str, line: bytes, running: RunningTurn) -> None:
        """Update from a notification of the thread; ``running`` is as before the notification."""
        if method == "turn/started":
            self.fresh = False
        elif method == "turn/completed":
            self.young = False
            if self.ephemeral and running.turn is not None:
                self._ended(turn_id(line) or running.turn, line, running)
        elif method == "item/completed":
            if self.preview == b'""' and _USER_MESSAGE in line:
                self.preview = _words(line)
            if self.turns:
                self._outlived(line)

    def _ended(self, id: str, line: bytes, running: RunningTurn) -> None:
        self.turns[id] = jsonrpc.write(running.shown_ended(line))
        while len(self.turns) > 1 and sum(map(len, self.turns.values())) > HISTORY_BYTES:
            del self.turns[next(iter(self.turns))]

    def _outlived(self, line: bytes) -> None:
        """Add an item (a command in the background) that is complete after its turn was over."""
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
        id = jsonrpc.read_text(params.get("turnId")) or ""
        turn = jsonrpc.read_fields(self.turns.get(id, b"null"))
        if turn is not None:
            items = turn["items"][1:-1], params["item"]
            turn["items"] = b"[" + b",".join(filter(None, items)) + b"]"
            self.turns[id] = jsonrpc.write(turn)

    def inherits(self, turns: list[bytes]) -> None:
        """Add the source's turns, which have been read."""
        self.source = None
        self.turns = {_id(jsonrpc.read_fields(turn) or {}): turn for turn in turns} | self.turns

    def resumed(
        self,
        status: bytes,
        running: RunningTurn,
        *,
        turns: bool,
        settings: bytes = b"",
        read: dict[str, bytes] | None = None,
    ) -> bytes:
        """Return the result of a ``thread/resume``: that of its start, brought up to date.

        ``settings``: those changed since then; ``read``: the thread's fields from ``thread/read``,
        if it was read.
        """
        known: list[bytes] = []
        if turns:
            known = list(self.turns.values())
            if running.turn is not None and running.announced:
                known.append(jsonrpc.write(running.shown()))
        has = jsonrpc.read_fields(settings) or {}
        holds = {shown: has[name] for name, shown in _SHOWN_AS.items() if name in has}
        thread = self.thread | {name: holds[name] for name in _OF_THREAD if name in holds}
        thread |= read or {}
        thread |= {"turns": b"[" + b",".join(known) + b"]", "status": status}
        if thread.get("preview", b'""') == b'""':
            thread["preview"] = self.preview
        roots = _roots(thread)
        holds |= {"runtimeWorkspaceRoots": roots} if roots is not None else {}
        return jsonrpc.write(self.result | holds | {"thread": jsonrpc.write(thread)})


def read_unsaved_thread(answer: bytes, forked: bytes | None = None) -> UnsavedThread | None:
    """Return the new thread in an answer to ``thread/start`` or ``thread/fork``, if one is there.

    ``forked``: the params of the fork; None for a start.
    """
    fields = jsonrpc.read_fields(answer) or {}
    result = jsonrpc.read_fields(fields.get("result", b"null"))
    thread = jsonrpc.read_fields((result or {}).get("thread", b"null"))
    if result is None or thread is None:
        return None
    turns: dict[str, bytes] = {}
    try:
        for raw in _turns_decoder.decode(thread.get("turns", b"[]")):
            turns[_id(jsonrpc.read_fields(bytes(raw)) or {})] = bytes(raw)
    except msgspec.DecodeError:
        pass  # of a shape that this version doesn't know
    new = forked is None
    birth = UnsavedThread(
        result, thread, thread.get("ephemeral") == b"true", turns, fresh=new, young=new
    )
    if forked is not None and birth.ephemeral and not turns:
        birth.source = _source(thread, jsonrpc.read_fields(forked) or {})
    return birth


def _source(thread: dict[str, bytes], forked: dict[str, bytes]) -> Source | None:
    source, fork = (jsonrpc.read_text(thread.get(name)) for name in ("forkedFromId", "id"))
    if source is None or fork is None:
        return None
    last, before = (jsonrpc.read_text(forked.get(name)) for name in ("lastTurnId", "beforeTurnId"))
    return Source(source, fork, last, before)


def _id(fields: dict[str, bytes]) -> str:
    return jsonrpc.read_text(fields.get("id")) or ""


# -- reading ---------------------------------------------------------------------------------------


class _Part(msgspec.Struct):
    text: str = ""


class _UserMessage(msgspec.Struct):
    content: list[_Part]


class _ItemParams(msgspec.Struct):
    item: _UserMessage


class _ItemMessage(msgspec.Struct):
    params: _ItemParams


class _Environment(msgspec.Struct):
    runtimeWorkspaceRoots: msgspec.Raw


def _words(line: bytes) -> bytes:
    """Return the words of a user's message, as JSON text."""
    try:
        parts = _message_decoder.decode(line).params.item.content
    except msgspec.DecodeError:
        return b'""'
    return msgspec.json.encode("".join(part.text for part in parts))


def _roots(thread: dict[str, bytes]) -> bytes | None:
    """Return where the thread may work by its environment; None if it has none or several."""
    try:
        [environment] = _environments_decoder.decode(thread.get("environments", b"[]"))
    except (msgspec.DecodeError, ValueError):
        return None
    return bytes(environment.runtimeWorkspaceRoots)


_USER_MESSAGE = b'"type":"userMessage"'
_message_decoder = msgspec.json.Decoder(_ItemMessage)
_environments_decoder = msgspec.json.Decoder(list[_Environment])
_turns_decoder = msgspec.json.Decoder(list[msgspec.Raw])
