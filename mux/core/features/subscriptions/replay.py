"""``mux/replay``: a client that knows the broker comes back, and gets what it missed.

The threads that it names, or that it followed before, are followed again. Threads that the
app-server has unloaded are loaded; while no app-server is ready the request waits for one, as any
other does. Then the client is behind, and reads the journal from its cursor on until it is live. If
the journal no longer reaches back to the cursor the answer says so, and nothing else happens: the
client then needs a snapshot (``thread/resume``).
"""

from __future__ import annotations

import msgspec

from mux.core.extension.following import Cursor, Replayed, ReplayParams
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.features.requests.directory_clearance import DirectoryClearance
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.methods import request_rule
from mux.core.protocol.rules import OfferTo, Route
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.backlog import Backlog
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.state import State

LOADING_AT_ONCE = 4
"""Threads that the app-server loads at once for one replay: other requests come in between."""


class _Replay(Part):
    """A replay that waits for threads to be loaded."""

    request: Request
    params: ReplayParams
    threads: list[str]
    """The threads to be followed again."""
    not_had: list[str]
    """Threads that need a snapshot first."""
    loading: int = 0
    """How many threads the app-server is loading."""
    unloaded: list[str] = msgspec.field(default_factory=list)
    """Threads that it will be asked to load."""

    @property
    def client(self) -> ClientId:
        """Return the client that asked."""
        return self.request.account


class Replays(Part):
    """Replays under way."""

    state: State
    client_requests: ClientRequests
    clearance: DirectoryClearance
    _loading: dict[int, tuple[_Replay, str]] = msgspec.field(default_factory=dict)
    """The replay and thread of each loading request, by wire id."""

    def client_left(self, client: Client) -> None:
        """Remember what a client followed, for its return."""
        self.state.departed_clients.remember(client)

    def unfollowed(self, client: Client, thread: str) -> None:
        """Forget that the client's predecessor followed a thread which the client has left."""
        self.state.departed_clients.followed_before(client).pop(thread, None)

    def handle(self, client: Client, message: ClientMessage) -> None:
        """Begin the replay that a client asks for, or refuse it."""
        wrong, params = None, None
        try:
            params = _decoder.decode(message.params)
        except msgspec.DecodeError as error:
            wrong = str(error)
        if not client.wants_seq:
            wrong = "declare `capabilities.extensions.appmux` in `initialize` first"
        elif self._is_under_way(client):
            wrong = _STILL_BEHIND
        if wrong is not None or params is None:
            text = f"Invalid request: {wrong}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
        else:
            request = self.client_requests.request(client, message, request_rule(message.method))
            request.params = message.params
            self._begin(client, request, params)

    def begin_waiting(self) -> None:
        """Begin the replays that waited for a ready app-server, and whose turn it is."""
        here, self.client_requests.here = self.client_requests.here, []
        for request in here:
            client = self.state.clients.get(request.account)
            if client is not None:
                self._begin(client, request, _decoder.decode(request.params))

    def _begin(self, client: Client, request: Request, params: ReplayParams) -> None:
        """Load the threads to follow; queue the request if no app-server is ready to load them."""
        if not self._reaches(params.after):
            answer = self._answer(complete=False)
            self.state.answer(client.id, jsonrpc.result(request.origin, answer), request.method)
            return
        threads, not_had = self._threads_to_replay(client, params)
        if threads and self.state.appserver.state is not AppServerState.READY:
            self.client_requests.submit(request)
        else:
            self._load(_Replay(request, params, self._with_children(threads), not_had))

    def _with_children(self, threads: list[str]) -> list[str]:
        """Add the threads' sub-agents, newer ones included: whoever follows a thread has both."""
        below = (each for id in threads for each in self.state.threads.descendants(id))
        return sorted({*threads, *below})

    def _is_under_way(self, client: Client) -> bool:
        loading = any(replay.client == client.id for replay, _ in self._loading.values())
        waits = any(each.rule.route is Route.REPLAY for each in self.state.scheduler.of(client.id))
        return loading or waits or client.backlog is not None

    def _reaches(self, after: Cursor) -> bool:
        journal = self.state.journal
        return after.epoch == journal.epoch and journal.earliest <= after.seq <= journal.head

    def _threads_to_replay(
        self, client: Client, params: ReplayParams
    ) -> tuple[list[str], list[str]]:
        """Return the threads to follow again, and those for which that isn't enough."""
        if params.threadIds is not None:
            named = {*params.threadIds, *([params.threadId] if params.threadId else [])}
            return sorted(named), []
        if params.threadId is not None:
            return [params.threadId], []
        name = client.info.name if client.info is not None else ""
        followed = self.state.departed_clients.followed_before(client)
        for other in self.state.clients.values():
            # The client's previous connection may not be known to be gone yet.
            if other is not client and other.resembles(name, client.principal):
                followed = followed | other.follows
        after = params.after.seq
        not_had = {id for id, since in followed.items() if not self._has_joined(id, since, after)}
        not_had -= client.follows.keys()
        return sorted((followed.keys() - not_had) | client.follows.keys()), sorted(not_had)

    def _has_joined(self, id: str, since: int, after: int) -> bool:
        """Return whether a client with all up to ``after`` got the answer by which it joined.

        That answer may have been lost with its connection. Then following again is not enough, and
        harmful: a ``thread/resume`` introduces what runs only to a client that doesn't follow. At
        the same number there is no telling, but only what runs could be missed.
        """
        thread = self.state.threads.known.get(id)
        runs = thread is not None and bool(thread.running.items)
        return since < after or (since == after and not runs)

    def _load(self, replay: _Replay) -> None:
        for id in replay.threads:
            self.state.threads.joining[id] += 1
        replay.unloaded = replay.threads[::-1]
        self._load_more(replay)

    def _load_more(self, replay: _Replay) -> None:
        """Load the next threads: a few at a time, as others use the app-server, too."""
        while replay.unloaded and replay.loading < LOADING_AT_ONCE:
            id = replay.unloaded.pop()
            thread = self.state.threads.known.get(id)
            if thread is None or not thread.subscribed:
                replay.loading += 1
                self._load_thread(replay, id)
        self._run_if_loaded(replay)

    def _load_thread(self, replay: _Replay, id: str) -> None:
        client = self.state.clients[replay.client]

        def load(settings: dict[str, bytes]) -> None:
            request = self.client_requests.load(id, settings)
            self._loading[request.wire] = (replay, id)

        def not_loaded(_code: int, _reason: str) -> None:
            replay.loading -= 1
            self._run_if_loaded(replay)

        self.clearance.load(client, id, load, not_loaded)

    def loaded(self, request: Request, *, failed: bool) -> bool:
        """Handle the answer to one of ``_load``'s requests; False if it is for none of them."""
        loading = self._loading.pop(request.wire, None)
        if loading is None:
            return False
        replay, id = loading
        replay.loading -= 1
        if not failed:
            self.state.threads.claim(id)
        if replay.client not in self.state.clients:
            replay.unloaded.clear()
        self._load_more(replay)
        return True

    def upstream_gone(self) -> None:
        """Submit replays again whose threads the ended app-server was loading.

        If no other app-server comes, they fail.
        """
        replays = {id(each): each for each, _ in self._loading.values()}.values()
        self._loading.clear()
        for replay in replays:
            self._no_longer_joining(replay)
            if replay.client not in self.state.clients:
                continue
            if self.state.appserver.state is AppServerState.DOWN:
                self.client_requests.lost(
                    replay.request, "the app-server ended while it loaded the thread"
                )
            else:
                self.client_requests.submit(replay.request)

    def _no_longer_joining(self, replay: _Replay) -> None:
        for thread in replay.threads:
            self.state.threads.joining[thread] -= 1
            self.state.release_candidates.add(thread)

    def _run_if_loaded(self, replay: _Replay) -> None:
        if replay.loading or replay.unloaded:
            return
        self._no_longer_joining(replay)
        client = self.state.clients.get(replay.client)
        if client is not None and client.backlog is not None:  # the client fell behind meanwhile
            code = jsonrpc.INVALID_REQUEST
            self.state.error(
                client.id, replay.request.origin, code, f"Invalid request: {_STILL_BEHIND}"
            )
        elif client is not None:
            self._run(client, replay)

    def _run(self, client: Client, replay: _Replay) -> None:
        state, after, known = self.state, replay.params.after.seq, self.state.threads.known
        subscribed = [id for id in replay.threads if id in known and known[id].subscribed]
        missing = sorted(set(replay.threads) - set(subscribed))
        answer = self._answer(complete=True)
        answer.threads, answer.missing = subscribed, sorted(missing + replay.not_had)
        state.answer(
            client.id, jsonrpc.result(replay.request.origin, answer), replay.request.method
        )
        before = self.state.departed_clients.followed_before(client)
        before |= dict.fromkeys(before.keys() & set(answer.missing), _NEVER_HAD)
        follows = dict.fromkeys(client.follows, state.journal.head)
        follows |= dict.fromkeys(subscribed, after)
        for id in subscribed:
            state.threads.follow(client, id)
        for request in state.pending_requests.pending():
            # The journal holds the request, or the client has it from before: it may answer without
            # being offered it anew.
            by_any = request.rule.offer_to is OfferTo.FOLLOWERS and client.declared(request.needs)
            seen = by_any and request.rule.is_for(client.principal.scopes)
            if request.thread in subscribed and seen:
                request.offered[client.id] = None
                state.pending_requests.changes += 1
        backlog = Backlog(
            after,
            follows,
            merged=replay.params.merged,
            wants_seq=True,
            targeted_until=state.journal.head,
            scopes=client.principal.scopes,
        )
        state.fall_behind(client, backlog)

    def _answer(self, *, complete: bool) -> Replayed:
        journal = self.state.journal
        return Replayed(complete, journal.epoch, journal.head, journal.earliest, journal.began)


_NEVER_HAD = 2**63
"""A number since which a thread is followed that no cursor reaches. A client that was answered that
it misses a thread drops what it had of it: from then on it needs a snapshot, as a newcomer does."""
_STILL_BEHIND = "this client is still catching up: ask again when it is live"
_decoder = msgspec.json.Decoder(ReplayParams)
