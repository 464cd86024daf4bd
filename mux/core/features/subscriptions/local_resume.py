"""``thread/resume`` answered by the broker itself, and the requests that this takes.

The app-server can't resume a thread that is only here (see ``unsaved_thread``). But it returns the
thread's current state when the thread is read; and for an ephemeral fork, the turns from its source
when those are listed. So a client that wants to join waits for these answers, and its own is made
of them. Its request stays among those upstream meanwhile: with its slot, its deadline, and its
place among what is lost with the app-server.

``responses`` passes on a resume that failed, and the answers to the requests made here.
"""

from __future__ import annotations

import msgspec

from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.requests.request import Request
from mux.core.state.state import State
from mux.core.state.threads.threads import Thread
from mux.core.state.threads.unsaved_thread import HISTORY_BYTES, UnsavedThread

READ = "thread/read"
LIST = "thread/turns/list"

PAGE = 100
"""Turns of a source listed at once: all that most threads have."""


class _Reading(Part):
    """A ``thread/resume`` that waits."""

    request: Request
    error: bytes
    """The app-server's answer to it."""
    thread: Thread
    birth: UnsavedThread
    """The broker's own record of the thread."""
    read: dict[str, bytes] | None = None
    """The thread's fields, as the app-server has them."""
    turns: list[dict[str, bytes]] = msgspec.field(default_factory=list)
    """The turns of the thread's source, the latest first."""
    size: int = 0
    """Bytes of these."""


class LocalResumes(Part):
    """The resumes under way, by the wire id of the request made last for each."""

    state: State
    client_requests: ClientRequests
    _waiting: dict[int, _Reading] = msgspec.field(default_factory=dict)

    def begins(self, request: Request, error: bytes) -> bool:
        """Return whether the broker can answer a request that failed; it begins to do so then."""
        if request.method != "thread/resume" or request.client is None or request.expired:
            return False
        thread = self.state.threads.known.get(request.thread or "")
        if thread is None or not thread.subscribed:
            return False
        if thread.unsaved is None or not thread.unsaved.is_complete:
            return False
        reading = _Reading(request, error, thread, thread.unsaved)
        self._ask(reading, READ, {"threadId": thread.id})
        return True

    def _ask(self, reading: _Reading, method: str, params: dict[str, object]) -> None:
        request = self.client_requests.ask_for_broker(method, params)
        self._waiting[request.wire] = reading

    def has_made(self, request: Request) -> bool:
        """Return whether the request was made here."""
        return request.wire in self._waiting

    def answered(self, request: Request, line: bytes) -> tuple[Request, bytes, bool] | None:
        """Handle the answer, good or not, to a request made here.

        The last one completes the resume: returns that request, its answer, and whether it failed.
        None before that.
        """
        reading = self._waiting.pop(request.wire)
        fields = jsonrpc.read_fields(line) or {}
        result = jsonrpc.read_fields(fields.get("result", b"null")) or {}
        if request.method == READ:
            reading.read = jsonrpc.read_fields(result.get("thread", b"null"))
            goes_on = self._asks_source(reading)
        else:
            goes_on = self._listed(reading, result)
        if goes_on:
            return None
        known = self.state.threads.known.get(reading.thread.id)
        if known is not reading.thread or not known.subscribed:
            return reading.request, reading.error, True  # the thread was closed meanwhile
        return reading.request, self._answer(reading), False

    def _asks_source(self, reading: _Reading, **more: object) -> bool:
        source = reading.birth.source
        if source is None or not reading.request.history_field:
            return False
        params = {"threadId": source.thread, "limit": PAGE, "itemsView": "full"}
        self._ask(reading, LIST, params | more)
        return True

    def _listed(self, reading: _Reading, result: dict[str, bytes]) -> bool:
        """Add a page of the source's turns; returns whether another one was asked for."""
        source = reading.birth.source
        if source is None:
            return False  # another joiner's request has brought them
        if "data" not in result:
            text = "the turns that a fork has from its source are unknown"
            self.state.log("warning", text, thread=reading.thread.id, source=source.thread)
            return False
        page = _list_decoder.decode(result["data"])
        reading.turns += [jsonrpc.read_fields(bytes(turn)) or {} for turn in page]
        reading.size += len(result["data"])
        cursor = jsonrpc.read_text(result.get("nextCursor"))
        if page and cursor is not None and reading.size < HISTORY_BYTES:
            return self._asks_source(reading, cursor=cursor)
        reading.birth.inherits(source.inherited(reading.turns[::-1]))
        return False

    def _answer(self, reading: _Reading) -> bytes:
        thread, running = reading.thread, reading.thread.running
        result = reading.birth.resumed(
            thread.shown_status,
            running,
            turns=bool(reading.request.history_field),
            settings=thread.settings,
            read=reading.read,
        )
        return jsonrpc.write({"id": reading.request.wire_text, "result": result})

    def upstream_gone(self) -> None:
        """Forget the resumes under way. As upstream requests they fail with all others."""
        self._waiting.clear()


_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
