"""Requests that wait until it is known in which directories they would have a thread work.

Where a thread is started, forked or loaded, codex takes the directory's own ``.codex/config.toml``
(no sandbox, no approvals, commands to run), if that directory or one above it is trusted; and
``thread/start`` makes it so. A thread may write into the directory that it works in. So such
requests of a client without ``admin`` wait here: the app-server is asked for the host's
configuration and the thread's directory, ``Resolve`` has the paths resolved outside the core, and
then ``directory_verdict`` decides how the request goes on. Other requests of its client for the
same thread wait behind it.

Used by ``Broker`` (requests), ``replay`` and ``subscriptions`` (threads to be loaded),
``responses`` (the app-server's answers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from mux.core.audit import audit_events
from mux.core.commands import Resolve
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part, later
from mux.core.policy.directory_verdict import STATUS_OF_SERVERS, Facts, Verdict, verdict
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.threads import thread_overrides, thread_settings
from mux.core.protocol.threads.directories import Home, Host, ResolvedPath, read_home, read_host
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, NULL, STARTS, Held
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.state import State

CONFIG = "config/read"
THREAD = "thread/read"

_PRESUMED = Held(approval=b'"on-request"')
"""The settings of a thread to be started, until the host's configuration is known: codex's
default."""

_LOOSEST = Held(approval=b'"never"', mode=b'"danger-full-access"')
"""The loosest settings. Presumed where a request is compared once more later: none is looser."""

Allow = Callable[[bytes], None]
"""Takes the params with which the request may go on."""

Deny = Callable[[int, str], None]
"""Takes a JSON-RPC code and a reason."""


class _Case(Part):
    """A request that waits for clearance."""

    client: Client
    method: str
    fields: dict[str, bytes]
    """Its params."""
    thread: str | None
    allow: Allow
    deny: Deny
    since: float
    reads: list[Request] = msgspec.field(default_factory=list)
    """The broker's requests for it that the app-server hasn't answered."""
    host: Host | None = None
    """The host's configuration, once the app-server has returned it."""
    home: Home | None = None
    """The thread's directories, likewise."""
    paths: tuple[str, ...] = ()
    """The paths that are being resolved."""
    needed: tuple[str, ...] = ()
    """The paths among them without which nothing can be decided."""
    behind: deque[ClientMessage] = msgspec.field(default_factory=deque)
    """Messages of the same client for the same thread, which wait for this one."""


class DirectoryClearance(Part):
    """The requests that wait for clearance, by number."""

    state: State
    client_requests: ClientRequests
    again: Callable[[Client, ClientMessage], None] = later()
    """Takes a message that waited behind a request."""
    waits: list[_Case] = msgspec.field(default_factory=list)
    """Cases for which the app-server hasn't been asked anything yet."""
    _cases: dict[int, _Case] = msgspec.field(default_factory=dict)
    _last: int = 0

    # ── what needs it ─────────────────────────────────────────────────────────────────────────

    def held(self, client: Client, method: str, thread: str | None) -> Held:
        """Return the settings to compare a request with, as far as they are known now."""
        known = self.state.threads.known.get(thread or "")
        held = known.held if known is not None else NOTHING_KNOWN
        if "admin" in client.principal.scopes:
            return _PRESUMED if method == "thread/start" else held
        # The request is compared once more, when the host's configuration is known.
        if method == "thread/start":
            return _LOOSEST
        return msgspec.structs.replace(held, mode=_LOOSEST.mode) if method in STARTS else held

    def is_needed(self, client: Client, message: ClientMessage) -> bool:
        """Return whether the request's paths must be known before it goes on."""
        method = message.method
        if "admin" in client.principal.scopes or self.state.appserver.state is AppServerState.DOWN:
            return False  # (while it is down, the client gets the error for that)
        if method == STATUS_OF_SERVERS:
            named = jsonrpc.read_fields(message.params)
            return named is None or named.get("threadId", NULL) != NULL
        if method in STARTS or method not in thread_overrides.METHODS:
            return method in STARTS
        fields = message.members or {}
        known = self.state.threads.known.get(message.thread or "")
        own = (known.directory or None) if known is not None else None
        return any(path != own for path in thread_overrides.directories_in(fields))

    def holds_back(self, client: Client, message: ClientMessage) -> bool:
        """Return whether the request waits behind one of the same client's for the same thread."""
        if not self._cases:
            return False
        own = [case for case in self._cases.values() if case.client is client]
        thread = message.thread if own else None
        before = next((case for case in own if case.thread == thread), None) if thread else None
        if before is None:
            return False
        if self._is_full(own, message):
            self._refuse_more(client, message)
        else:
            before.behind.append(message)
        return True

    def _is_full(self, own: list[_Case], message: ClientMessage) -> bool:
        limits = self.state.limits
        waiting = [each for case in own for each in case.behind]
        size = sum(len(each.params) for each in waiting)
        many = len(own) + len(waiting) >= limits.queued_per_client
        return many or (size + len(message.params) > limits.queued_bytes_per_client and size > 0)

    def _refuse_more(self, client: Client, message: ClientMessage) -> None:
        text = "Server overloaded; retry later."
        self.state.error(client.id, message.id, jsonrpc.OVERLOADED, text)

    # ── what must be known ────────────────────────────────────────────────────────────────────

    def ask(
        self, client: Client, message: ClientMessage, pass_on: Callable[[ClientMessage], None]
    ) -> None:
        """Clear a client's message: ``pass_on`` with it as it may go upstream, or refuse it."""
        own = [case for case in self._cases.values() if case.client is client]
        if len(own) >= self.state.limits.queued_per_client:
            self._refuse_more(client, message)
            return

        def allow(params: bytes) -> None:
            pass_on(message.with_params(params, came=message.came or message.params))

        def deny(code: int, reason: str) -> None:
            if client.id not in self.state.clients:
                return
            data: dict[str, object] | None = None
            if code == jsonrpc.APP_SERVER_GONE:  # it never went upstream: it may be sent again
                data = {"generation": self.state.appserver.generation, "retryable": True}
            if code == jsonrpc.FORBIDDEN:
                has = sorted(client.principal.scopes)
                data = {"method": message.method, "needs": "admin", "has": has}
                audit_events.refused(self.state, client, message.method, "admin")
            self.state.error(client.id, message.id, code, reason, data)

        self.clear(client, message.method, message.params, allow, deny)

    def clear(self, client: Client, method: str, params: bytes, allow: Allow, deny: Deny) -> None:
        """Clear a request that isn't a client's own message."""
        fields = jsonrpc.read_fields(params) or {}
        thread = jsonrpc.read_text(fields.get("threadId"))
        if method == "thread/start":
            thread = None
        self._last += 1
        case = _Case(client, method, fields, thread, allow, deny, self.state.now)
        self._cases[self._last] = case
        self.waits.append(case)
        self.state.wake_at(self.state.now + self.state.limits.coming_up)

    def load(
        self, client: Client, id: str, load: Callable[[dict[str, bytes]], None], deny: Deny
    ) -> None:
        """Have a thread loaded for a client: as it was before, or else as its asker may load it.

        ``load`` takes the settings to load it with, as JSON texts.
        """
        thread = self.state.threads.known.get(id)
        if thread is not None and thread.loaded_with:
            load(thread_settings.to_load(thread.loaded_with, thread.settings))
        elif "admin" in client.principal.scopes:
            load({})
        else:
            params = jsonrpc.write({"threadId": msgspec.json.encode(id)})

            def allow(allowed: bytes) -> None:
                load(jsonrpc.read_fields(allowed) or {})

            self.clear(client, "thread/resume", params, allow, deny)

    def refresh(self) -> None:
        """Ask for what the waiting cases need, if there is an app-server to ask."""
        if self.state.appserver.state is not AppServerState.READY:
            return
        waiting, self.waits = self.waits, []
        for case in waiting:
            case.reads.append(self.client_requests.ask_for_broker(CONFIG, {"includeLayers": False}))
            if case.thread is not None:
                params = {"threadId": case.thread}
                case.reads.append(self.client_requests.ask_for_broker(THREAD, params))

    def answered(self, request: Request, line: bytes, *, failed: bool) -> bool:
        """Handle the answer to a request of ``refresh``; False if it is for none of them."""
        cases = ((n, each) for n, each in self._cases.items() if request in each.reads)
        number, case = next(cases, (0, None))
        if case is None:
            return False
        case.reads.remove(request)
        if request.method == THREAD:
            case.home = None if failed else read_home(line)  # the request will fail, too
        else:
            case.host = None if failed else read_host(line)
        if not case.reads:
            self._resolve(number, case)
        return True

    def _resolve(self, number: int, case: _Case) -> None:
        if case.host is None:
            reason = f"`{case.method}`: the host's configuration can't be read"
            self._close(number, lambda: case.deny(jsonrpc.INTERNAL_ERROR, reason))
            return
        named = case.home.paths if case.home is not None else []
        if case.method in thread_overrides.METHODS:
            named += thread_overrides.directories_in(case.fields)
        if case.method == "thread/start" and thread_overrides.cwd_in(case.fields) is None:
            named.append("")  # the app-server's own directory
        case.needed = tuple(dict.fromkeys(named))
        case.paths = tuple(dict.fromkeys([*named, *case.host.projects]))
        self.state.out.append(Resolve(number, case.paths))

    def resolved(self, number: int, places: tuple[ResolvedPath | None, ...]) -> None:
        """Decide a case whose paths have been resolved; a place is None if its path couldn't be."""
        case = self._cases.get(number)
        if case is None or case.host is None:
            return  # the case's client has left
        known = {path: place for path, place in zip(case.paths, places, strict=True) if place}
        missing = [path for path in case.needed if path not in known]
        if missing:
            which = missing[0] or "the app-server's directory"
            reason = f"`{case.method}`: {which} can't be resolved to a directory of this host"
            self._close(number, lambda: case.deny(jsonrpc.INTERNAL_ERROR, reason))
            return
        if case.method == "thread/start":
            held = Held(approval=case.host.approval, mode=case.host.sandbox)
        else:
            held = self.held(case.client, case.method, case.thread)
            held = msgspec.structs.replace(held, mode=case.host.sandbox)
        facts = Facts(case.method, case.fields, held, case.host, case.home, known)
        self._close(number, lambda: self._decided(case, verdict(facts)))

    def _decided(self, case: _Case, verdict: Verdict) -> None:
        if verdict.params is None:
            case.deny(jsonrpc.FORBIDDEN, verdict.refusal)
            return
        thread = self.state.threads.known.get(case.thread or "")
        is_there = case.method == "thread/resume" and thread is not None and thread.subscribed
        if verdict.directory and not is_there:
            fields: dict[str, object] = {"thread": case.thread, "directory": verdict.directory}
            fields |= {"method": case.method, "readOnly": verdict.read_only}
            audit_events.unlisted(self.state, case.client, fields)
        if thread is not None and verdict.distrusted and case.method not in STARTS:
            # The thread will work there. Loaded again, it is to take no configuration from there.
            thread.loaded_with = thread_settings.distrusting(thread.loaded_with, verdict.distrusted)
        case.allow(verdict.params)

    def _close(self, number: int, decide: Callable[[], None]) -> None:
        """Close a case: decide on the request, then let go on what waited behind it."""
        case = self._cases.pop(number)
        if case in self.waits:
            self.waits.remove(case)
        decide()
        for message in case.behind:
            if case.client.id in self.state.clients:
                self.again(case.client, message)

    # ── answers that don't come ───────────────────────────────────────────────────────────────

    def client_left(self, client: ClientId) -> None:
        """Drop the cases of a departed client. Call it when the client isn't attached any more."""
        self.waits = [case for case in self.waits if case.client.id != client]
        for number in [n for n, case in self._cases.items() if case.client.id == client]:
            self._cases.pop(number).deny(jsonrpc.INTERNAL_ERROR, "its client has left")

    def app_server_gone(self) -> None:
        """Ask the next app-server what the last one didn't answer; if none comes, give up."""
        down = self.state.appserver.state is AppServerState.DOWN
        for number, case in list(self._cases.items()):
            if down:
                self._give_up(number, case, "the app-server is down")
            elif case.reads:
                case.reads.clear()
                self.waits.append(case)

    def on_timer(self) -> float:
        """Give up cases that have waited too long; returns when the next one is due."""
        limit = self.state.limits.coming_up
        for number, case in list(self._cases.items()):
            if case.since + limit <= self.state.now:
                self._give_up(number, case, f"the app-server did not come up within {limit:g} s")
        return min((case.since + limit for case in self._cases.values()), default=float("inf"))

    def _give_up(self, number: int, case: _Case, reason: str) -> None:
        self._close(number, lambda: case.deny(jsonrpc.APP_SERVER_GONE, reason))
