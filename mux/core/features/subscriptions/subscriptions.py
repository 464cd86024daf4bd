"""Subscriptions: joining a thread, what a joiner is given, and giving a thread back.

A client joins by the answer to its ``thread/start``, ``fork``, ``resume`` or ``review/start``. The
order matters to clients. Before the answer a joiner gets notifications that came first and are for
it (a new thread's first ones). Right after the answer it gets what runs, and the server requests
that await an answer.

A sub-agent's thread, to which the app-server subscribes every connection by itself, is joined by
the followers of its parent: when it is made, and together with the parent by later joiners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mux.core.features.approvals.server_requests import ServerRequests
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.features.requests.directory_clearance import DirectoryClearance
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.rules import RequestRule, Route
from mux.core.protocol.threads import thread_messages, thread_settings
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.state import NEVER, State
from mux.core.state.threads import unsaved_thread
from mux.core.state.threads.long_snapshot import LongAnswer
from mux.core.state.threads.threads import Thread
from mux.core.state.turns import running_turn

USAGE = "thread/tokenUsage/updated"


class Subscriptions(Part):
    """Decides which client joins and leaves which thread."""

    state: State
    client_requests: ClientRequests
    server_requests: ServerRequests
    clearance: DirectoryClearance
    _loading: dict[int, str] = msgspec.field(default_factory=dict)
    """Sub-agents' threads that were given back and are loaded again for a joiner of their parent,
    by wire id."""
    _clearing: dict[str, ClientId] = msgspec.field(default_factory=dict)
    """Such threads for which it isn't known yet how this joiner may load them."""

    # ── joining by an answer ──────────────────────────────────────────────────────────────────

    def before_answer(
        self, request: Request, client: Client | None, line: bytes
    ) -> dict[str, bool]:
        """Join the client to the threads that the answer to its following request names.

        Returns these threads, each with whether the client is new to it.
        """
        follows = client.follows if client is not None else {}
        named = {id: id not in follows for id in thread_messages.threads_named(line)}
        for id in named:
            self._follow(request, client, id, line)
        return named

    def up_to_date(
        self, named: Iterable[str], request: Request, line: bytes, long: LongAnswer | None
    ) -> tuple[bytes, LongAnswer | None]:
        """Return the answer to a ``thread/resume`` with what happened while it was on its way.

        A long one stays in its pieces where that can be done.
        """
        for id in named if request.method == "thread/resume" else ():
            thread = self.state.threads.get(id)
            status = thread.shown_status if thread.status in ("active", "idle") else None
            turns = bool(request.history_field)
            if long is not None:
                edited = long.up_to_date(thread.running, status, turns=turns)
                if edited is not None:
                    return line, edited
                line = long.whole()
            fields = jsonrpc.read_fields(line) or {}
            result = running_turn.up_to_date(fields["result"], thread.running, status, turns=turns)
            return jsonrpc.write(fields | {"result": result}), None
        return line, long

    def _follow(self, request: Request, client: Client | None, id: str, line: bytes) -> None:
        thread = self.state.threads.get(id)
        if not thread.subscribed and request.method != "review/start":
            thread.loaded_with = request.params  # ignored, natively, for a loaded thread
        if request.method != "review/start":
            thread.held = thread_settings.held_by_answer(line) or thread.held
        self.state.threads.claim(id)
        self.state.unclaimed.adopted_at.pop(id, None)
        if request.method in ("thread/start", "thread/fork"):
            forked = request.params if request.method == "thread/fork" else None
            new = unsaved_thread.read_unsaved_thread(line, forked)
            # A fork on disk needs no record, which would hold all of its turns.
            thread.unsaved = new if new is not None and new.is_complete else None
            if new is not None and new.for_title:
                thread.private = True
        if thread.status == "unknown":
            thread.status = thread_messages.status_named(line)
        if client is None or request.unwanted:
            self.state.release_candidates.add(id)
        else:
            self._join(client, id)
            if request.method == "thread/start":
                self.state.tool_owners.register(id, request.params, client.owner())
        self._publish_early(id)

    def _join(self, client: Client, id: str) -> None:
        head = self.state.journal.head
        self.state.threads.follow(client, id, head).kept_until = 0.0
        if client.backlog is not None:
            client.backlog.follow(id, head)

    def after_answer(self, client: Client | None, named: dict[str, bool]) -> None:
        """Send new followers what runs, and offer them what waits, once the answer is out."""
        for id, new in named.items():
            thread = self.state.threads.get(id)
            if client is None or client.id not in thread.followers:
                self.state.release_candidates.add(id)  # its asker left, or has unsubscribed
                continue
            # As if the client had been there: running items, then the server requests that wait.
            # The cursor is marked last, when the client has all of that.
            for method, line in thread.running.introduction() if new else ():
                self._notify(client, method, line)
            self.server_requests.offer_pending(client, id)
            self.state.complete_joining(client)
            if new:
                self._join_children(client, id)

    def _join_children(self, client: Client, parent: str) -> None:
        """Join a client to the sub-agents of a parent that it joined.

        The client has no snapshot of them.
        """
        for id in self.state.threads.descendants(parent):
            child = self.state.threads.get(id)
            if client.id in child.followers:
                continue
            if child.subscribed:
                self._introduce(client, child)
            elif id not in self._loading.values():
                self._load_child(client, id)

    def _load_child(self, client: Client, id: str) -> None:
        if self._clearing.get(id) in self.state.clients:
            return  # the thread is being loaded for another joiner

        def load(settings: dict[str, bytes]) -> None:
            self._clearing.pop(id, None)
            self._loading[self.client_requests.load(id, settings).wire] = id

        def not_loaded(_code: int, _reason: str) -> None:
            self._clearing.pop(id, None)

        self._clearing[id] = client.id
        self.clearance.load(client, id, load, not_loaded)

    def _introduce(self, client: Client, child: Thread) -> None:
        self._join(client, child.id)
        running = child.running
        if running.turn is not None and running.announced:
            self._notify(client, "turn/started", running.started)
        for method, line in running.introduction():
            self._notify(client, method, line)
        self.server_requests.offer_pending(client, child.id)
        self.state.complete_joining(client)

    def _notify(self, client: Client, method: str, line: bytes | Rope) -> None:
        if client.receives(method):
            self.state.send(client.id, line, method)

    def loaded(self, request: Request, *, failed: bool) -> bool:
        """Handle the answer to a request of ``_join_children``; False if it is for none of them."""
        id = self._loading.pop(request.wire, None)
        child = self.state.threads.known.get(id or "")
        if id is None or child is None or failed:
            return id is not None
        self.state.threads.claim(id)
        for joiner in self.state.threads.audience(child.parent or ""):
            if joiner not in child.followers:
                self._introduce(self.state.clients[joiner], child)
        self.state.release_candidates.add(id)
        return True

    def upstream_gone(self) -> None:
        """Forget what the ended app-server was loading; the next one is given all threads."""
        self._loading.clear()

    def begun(self, request: Request, line: bytes) -> None:
        """Begin the turn that the answer to a request names.

        The turn's ``turn/started`` comes only after that.
        """
        named = thread_messages.threads_named(
            line
        )  # a detached review names another than the request
        thread = self.state.threads.known.get(named[0] if named else request.thread or "")
        turn = thread_messages.turn_begun(line)
        if thread is None or turn is None:
            return
        if not thread.subscribed:
            thread.status = "active"  # we won't be notified of its turn's end, but of its status
            return
        thread.running.begin(thread.id, turn, request.actor)
        self.state.durable.touch("thread", thread.id)

    def will_repeat(self, request: Request) -> None:
        """Note that a successful ``thread/resume`` makes the app-server repeat the token usage."""
        thread = self.state.threads.known.get(request.thread or "")
        if request.method != "thread/resume" or thread is None or not thread.usage:
            return
        if request.history_field:
            thread.usage_due.append(request.client)

    def repeats(self, id: str, line: bytes) -> bool:
        """Return whether a usage notification only repeats what is known; its asker gets it then.

        A new notification never equals the last: the total has grown.
        """
        thread = self.state.threads.known.get(id)
        params = (jsonrpc.read_fields(line) or {}).get("params", b"")
        if thread is None or thread.usage != params or not thread.usage_due:
            if thread is not None:
                thread.usage = params
            return False
        client = self.state.clients.get(thread.usage_due.pop(0) or 0)
        if client is not None and client.receives(USAGE):
            self.state.send(client.id, line, USAGE)
        return True

    def on_timer(self) -> float:
        """Release and adopt threads whose time has come; returns when the next is due."""
        return min(self._release_in_time(), self._adopt_unclaimed())

    # ── threads that nobody asked for ─────────────────────────────────────────────────────────

    def unclaimed(self, thread: str, method: str, line: bytes) -> None:
        """Store a notification of a thread that nobody follows yet.

        Its creator's answer or its parent's item is expected soon. A thread that runs a turn is a
        sub-agent's. If no parent names it in time it becomes everybody's, as natively every
        connection is subscribed to it.
        """
        unclaimed = self.state.unclaimed
        unclaimed.add(thread, method, line)
        if method == "turn/started":
            unclaimed.adopted_at[thread] = self.state.now + self.state.limits.parent_wait
            self.state.wake_at(unclaimed.adopted_at[thread])

    def _adopt_unclaimed(self) -> float:
        """Make threads everybody's that no parent named in time; returns when the next is due."""
        adopted_at = self.state.unclaimed.adopted_at
        for thread, moment in list(adopted_at.items()):
            if moment <= self.state.now:
                self._adopt(thread, self.state.threads.audience(None))
        return min(adopted_at.values(), default=NEVER)

    def spawned(self, parent: str, line: bytes) -> None:
        """Join a parent's followers to the sub-agents' threads that its completed item names."""
        for child in thread_messages.spawned(line):
            of = self.state.threads.get(parent)
            thread = self.state.threads.spawned(parent, child)
            if not thread.claimed:
                thread.spawned_by = of.running.actor or of.spawned_by
                self._adopt(child, tuple(of.followers))

    def _adopt(self, thread: str, followers: tuple[ClientId, ...]) -> None:
        self.state.unclaimed.adopted_at.pop(thread, None)
        self.state.threads.claim(thread).adopted = True
        for id in followers:
            self._join(self.state.clients[id], thread)
        self._publish_early(thread)
        for id in followers:
            self.server_requests.offer_pending(self.state.clients[id], thread)

    def _publish_early(self, thread: str) -> None:
        """Publish a thread's notifications from before anybody followed it."""
        for method, line in self.state.unclaimed.take_notifications(thread):
            self.state.publish(thread, method, line)

    # ── leaving ───────────────────────────────────────────────────────────────────────────────

    def client_unfollows(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        """Answer ``thread/unsubscribe`` here: subscriptions are counted per client."""
        id = message.thread or ""
        thread = self.state.threads.known.get(id)
        held = thread is not None and (thread.subscribed or thread.followers)
        if not held and not self.state.threads.joining[id]:
            # No client has the thread, so none loses it; and an error will be the native one.
            self.client_requests.ask(client, message, rule)
            return
        thread = self.state.threads.get(id)
        joining = [
            request
            for request in self.state.scheduler.of(client.id)
            if request.thread == thread.id and request.rule.route is Route.FOLLOW
        ]
        for request in joining:
            request.unwanted = True
        follows = client.id in thread.followers or joining
        status = "unsubscribed" if follows else "notSubscribed"
        self.state.unfollow(client, thread.id)
        self.server_requests.unfollowed(client, thread.id)
        answer = jsonrpc.result(message.id, {"status": status})
        self.state.answer(client.id, answer, message.method)
        self.state.release_candidates.add(thread.id)

    def client_left(self, client: Client) -> None:
        """Remove a departed client from its threads.

        A thread that couldn't be joined again stays subscribed for the client's return.
        """
        for thread in self.state.threads.leave(client):
            thread.kept_until = 0.0
            if thread.only_here and not thread.followers:
                thread.kept_until = self.state.now + self.state.limits.kept_for_return
                self.state.wake_at(thread.kept_until)
            self.state.release_candidates.add(thread.id)

    def release_unused(self) -> None:
        """Release unused threads: those that lost a holder, and those that are only mentioned."""
        if self.state.threads.crowded:
            self.state.threads.forget(self._is_needed)
        candidates, self.state.release_candidates = self.state.release_candidates, set()
        self.state.threads.joining += Counter()  # drops the zeros
        self.state.threads.beginning += Counter()
        for id in candidates:
            thread = self.state.threads.known.get(id)
            if thread is not None:
                self._release(thread)

    def _release(self, thread: Thread) -> None:
        """Give the subscription back once nobody follows and nothing runs or waits."""
        if thread.subscribed and not self.state.is_held(thread):
            thread.subscribed = False
            self.state.durable.touch("thread", thread.id)
            self.client_requests.give_back(thread.id)

    def _is_needed(self, thread: Thread) -> bool:
        """Return whether an unfollowed thread may yet be followed, or something of it waits."""
        return thread.id in self.state.unclaimed or self.state.is_held(thread)

    def _release_in_time(self) -> float:
        """Release threads whose time for a return is over; returns when the next one is due."""
        next_one = NEVER
        for thread in self.state.threads.kept():
            if thread.kept_until <= self.state.now:
                thread.kept_until = 0.0
                self.state.release_candidates.add(thread.id)
            else:
                next_one = min(next_one, thread.kept_until)
        return next_one

    def thread_closed(self, thread: str) -> None:
        """Forget a thread that the app-server has unloaded."""
        self.state.close(thread)
        self.state.unclaimed.forget(thread)
