"""The app-server's lives: what happens when one ends, and how the next one takes over.

*Crash*: requests in flight fail with an error that says whether to ask again; requests in queues
stay there. Approvals are resolved and running turns ended for all clients that saw them, since the
app-server can't do that any more. The next life is started after a wait, initialized, and given the
followed threads, watches and searches; then the queues go on. Followers stay followers throughout.
After five ends in a minute it is *down*: requests get an error, and it is started again ever more
rarely, up to once a minute, until it comes up or a client asks for a start (``mux/restart``).

*Planned* (``mux/restart``): new work is held back until nothing runs and no server request waits;
then the process is stopped, and all goes on as after a crash, only that nothing was lost.

*Hang*: an app-server that sends nothing is probed, and killed if it doesn't answer.
"""

from __future__ import annotations

import msgspec

from mux.core.commands import GiveUp, KillUpstream, StartUpstream, StopUpstream
from mux.core.extension.runtime import Restarted
from mux.core.features.approvals.resolutions import Resolutions
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ItemParams
from mux.core.protocol.rules import RequestRule
from mux.core.protocol.threads import thread_settings
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import DEPARTED
from mux.core.state.state import NEVER, State
from mux.core.state.threads.threads import Thread

MINUTE = 60.0
LONGEST_WAIT = 8.0
"""Seconds before a start, at most, while the app-server isn't down: people wait for it."""

DOUBLINGS = 16
"""The wait while it is down doubles so often at most: by then it is the longest in any case."""

OWN_DELAY = 1.0
"""Seconds. When the end of the app-server's deadline is noticed so much later, the broker itself
didn't run: it was stopped, or the machine was. The answer may be there, and isn't read yet."""

BEGUN_AGAIN = {
    "fs/unwatch": "fs/watch",
    "fuzzyFileSearch/sessionStop": "fuzzyFileSearch/sessionStart",
    "mcpServer/event/stream/stop": "mcpServer/event/stream/start",
}
"""The method that ends a client's thing → the method that begins it, for the things that the next
life can go on with."""


class Recovery(Part):
    """The ends and beginnings of the app-server's lives."""

    state: State
    client_requests: ClientRequests
    resolutions: Resolutions
    _resuming: dict[int, str] = msgspec.field(default_factory=dict)
    """Threads that are being given to the next life, by wire id."""
    _probe: Request | None = None
    """The request that probes a silent app-server."""
    _given_up_at: float = NEVER
    """When an app-server that doesn't answer the probe is given up."""

    # ── an end ────────────────────────────────────────────────────────────────────────────────

    def exited(self, reason: str, unix_time: float) -> None:
        """End a life: the process is gone."""
        state = self.state
        state.appserver.end("" if state.restart.stopping else reason, state.now)
        state.durable.touch("app-server", "")
        self._probe = None
        self._resuming.clear()
        # Clients see the end in this order: their requests fail, server requests are resolved,
        # then turns and processes end.
        for request in state.scheduler.lose():
            state.durable.touch("wire", str(request.wire))
            text = f"the app-server ended before it answered `{request.method}`"
            self.client_requests.lost(request, text)
        self.resolutions.resolve_all()
        for thread in list(state.threads.known.values()):
            self._end_thread(thread, unix_time)
        self._end_processes()
        self._begin_again(reason)

    def _end_thread(self, thread: Thread, unix_time: float) -> None:
        state, was_subscribed = self.state, thread.subscribed
        state.durable.touch("thread", thread.id)
        thread.subscribed = False
        if was_subscribed and thread.running.turn is not None:
            self._notify_status(thread, "idle")
            for line in thread.running.interrupted(unix_time):
                state.publish(thread.id, "turn/completed", line)
        thread.running.forget()
        thread.usage_due.clear()
        if thread.status == "active":
            thread.status = "idle"
        needed = thread.followers or thread.id in state.turn_queues
        if thread.only_here or not needed:
            self._lose(thread, notify=was_subscribed)

    def _lose(self, thread: Thread, *, notify: bool = True) -> None:
        """Close a thread that the next life won't know."""
        if notify:
            self._notify_status(thread, "notLoaded")
            closed = jsonrpc.notification("thread/closed", {"threadId": thread.id})
            self.state.publish_to_all(thread.id, "thread/closed", closed)
        self.state.close(thread.id)

    def close_lost(self, thread: Thread) -> None:
        """Close a thread that the app-server has unloaded while there was no broker."""
        self._lose(thread, notify=False)

    def publish_missed(self, id: str, line: bytes) -> None:
        """Publish the end of a turn that no client was told of."""
        thread = self.state.threads.known[id]
        self.state.publish(id, "turn/completed", line)
        self.state.threads.apply(id, "turn/completed", _NO_PARAMS, line)
        self.resolutions.turn_over(id, thread.running.over, line)
        self._notify_status(thread, thread.status)

    def ready(self) -> None:
        """Begin to serve with a life that an earlier broker left."""
        self._ready_if_resumed()

    def _notify_status(self, thread: Thread, status: str) -> None:
        thread.status = status
        method = "thread/status/changed"
        params = {"threadId": thread.id, "status": {"type": status}}
        self.state.publish_to_all(thread.id, method, jsonrpc.notification(method, params))

    def _end_processes(self) -> None:
        for client, claim in self.state.scoped_ids.running():
            if claim.ended_by not in BEGUN_AGAIN:
                self.state.scoped_ids.release(client, claim)
            notified = "process/exited" not in self.state.clients[client].opted_out
            if claim.ended_by == "process/kill" and notified:
                ended = _PROCESS_GONE | {claim.field: claim.origin}
                message = jsonrpc.notification("process/exited", ended)
                self.state.send(client, message, "process/exited")

    def _begin_again(self, reason: str) -> None:
        state = self.state
        if state.restart.stopping:
            state.restart.stopping = False
            state.out.append(StartUpstream(0.0))
            return
        state.log("error", "app-server ended", why=reason, generation=state.appserver.generation)
        if not (state.appserver.user_agent or state.appserver.inherited):
            state.out.append(GiveUp(reason))
            return
        self._count_death()
        if self._is_to_stay_down():
            self._stay_down(reason)
        else:
            wait = state.limits.restart_first_wait * 2.0 ** (len(state.appserver.ends) - 2)
            state.out.append(StartUpstream(min(wait, LONGEST_WAIT)))
            state.wake_at(state.scheduler.oldest_queued() + state.limits.coming_up)
        self.state.appserver.ready_since = None

    def _count_death(self) -> None:
        now, appserver = self.state.now, self.state.appserver
        if appserver.ready_since is not None and appserver.ready_since <= now - MINUTE:
            appserver.tries_while_down = 0  # the cause of the earlier deaths is gone
        appserver.ends.append(now)
        while appserver.ends[0] < now - MINUTE:
            appserver.ends.popleft()

    def _is_to_stay_down(self) -> bool:
        # A life that has come up after all may have a burst of deaths of its own.
        appserver = self.state.appserver
        again = appserver.tries_while_down > 0 and appserver.ready_since is None
        return again or len(appserver.ends) >= self.state.limits.deaths_in_a_minute

    def _stay_down(self, reason: str) -> None:
        state, limits = self.state, self.state.limits
        state.appserver.state = AppServerState.DOWN
        # The power is bounded as well: it would overflow after a day.
        wait = limits.down_first_wait * 2.0 ** min(state.appserver.tries_while_down, DOUBLINGS)
        wait = min(wait, limits.down_longest_wait)
        state.appserver.tries_while_down += 1
        state.appserver.next_start = state.now + wait
        state.out.append(StartUpstream(wait))
        text = "app-server is down; it is started again, and at once by `appmux restart`"
        state.log("error", text, seconds=wait, tries=state.appserver.tries_while_down)
        self._fail_all_that_waits(
            f"the app-server is down: {reason}; it is started again in {wait:g} s"
        )

    def down_text(self) -> str:
        """Return the error text for requests made while the app-server is down."""
        wait = max(0.0, self.state.appserver.next_start - self.state.now)
        return (
            f"the app-server is down, see `appmux status`; it is started again in {wait:.0f} s,"
            " by `appmux restart` at once"
        )

    def _fail_all_that_waits(self, reason: str) -> None:
        state = self.state
        for request in state.scheduler.drop_queued():
            self.client_requests.lost(request, reason)
        for request in self.state.restart.held:
            self.client_requests.drop(request)
            self.client_requests.fail(request, jsonrpc.APP_SERVER_GONE, reason)
        for client, origin in self.state.restart.requests:
            if client in state.clients:
                state.error(client, origin, jsonrpc.APP_SERVER_GONE, reason)
        state.restart.held.clear()
        state.restart.settled()

    # ── a beginning ───────────────────────────────────────────────────────────────────────────

    def resume(self) -> None:
        """Give an initialized life what the last one had, before anything else."""
        state = self.state
        state.appserver.state = AppServerState.RESUMING
        for thread in list(state.threads.known.values()):
            needed = thread.followers or thread.id in state.turn_queues
            if needed and not thread.subscribed:
                request = self.client_requests.load(
                    thread.id, thread_settings.to_load(thread.loaded_with, thread.settings)
                )
                self._resuming[request.wire] = thread.id
        for _client, claim in state.scoped_ids.running():
            begin = BEGUN_AGAIN.get(claim.ended_by)
            if begin is not None:
                self.client_requests.ask_for_broker(begin, msgspec.Raw(claim.params), claim=claim)
        self._ready_if_resumed()

    def resumed(self, request: Request, *, failed: bool) -> bool:
        """Handle the answer to a request of ``resume``; False if it is for none of them."""
        if request is self._probe:
            self._probe = None
        id = self._resuming.pop(request.wire, None)
        if id is None:
            return False
        thread = self.state.threads.known.get(id)
        if failed:
            log = self.state.log
            log("warning", "thread not as before the restart", thread=id, method=request.method)
        if thread is not None and request.method != thread_settings.UPDATE:
            self._loaded(thread, failed=failed)
        self._ready_if_resumed()
        return True

    def _loaded(self, thread: Thread, *, failed: bool) -> None:
        if failed:
            self._lose(thread)
            return
        self.state.threads.claim(thread.id)
        self.state.release_candidates.add(thread.id)  # its last follower may have left meanwhile
        if thread.settings:
            params = thread_settings.to_update(thread.id, thread.settings)
            request = self.client_requests.ask_for_broker(thread_settings.UPDATE, params)
            self._resuming[request.wire] = thread.id

    def _ready_if_resumed(self) -> None:
        state = self.state
        if self._resuming:
            return
        state.appserver.state = AppServerState.READY
        state.appserver.last_heard = state.appserver.ready_since = state.now
        state.wake_at(state.now + state.limits.probe_interval)
        # Whoever asked for the restart is answered before the work that was held for it goes on.
        result = Restarted(state.appserver.generation, state.appserver.version)
        for client, origin in self.state.restart.requests:
            if client in state.clients:
                state.answer(client, jsonrpc.result(origin, result), "mux/restart")
        state.restart.settled()
        held, state.restart.held = state.restart.held, []
        for request in held:
            self.client_requests.submit(request)
        state.log("info", "app-server ready", generation=state.appserver.generation)

    # ── a planned end ─────────────────────────────────────────────────────────────────────────

    def plan_restart(self, client: ClientId, origin: bytes, *, now: bool) -> None:
        """Plan a restart for a client, which is answered when the new life is ready."""
        restart = self.state.restart
        restart.requests.append((client, origin))
        restart.at_once = restart.at_once or now
        if self.state.appserver.state is AppServerState.DOWN:
            self.state.appserver.ends.clear()
            self.state.appserver.tries_while_down = 0
            self.state.appserver.state = AppServerState.STARTING
            self.state.out.append(StartUpstream(0.0))

    def holds(self, request: Request, thread: Thread | None) -> bool:
        """Hold the request back if it begins work that must wait for the restart; True if so."""
        if not self.state.restart.requests or not request.rule.begins:
            return False
        if thread is not None and thread.running.turn is not None:
            return False  # the request joins a turn that runs, for which the restart waits anyway
        if len(self.state.restart.held) >= self.state.limits.queued_per_client:
            self.client_requests.refuse(request)
        else:
            self.state.restart.held.append(request)
            self.state.wake_at(self.state.now + self.state.limits.request_deadline)
        return True

    def client_left(self, client: Client) -> None:
        """Drop a departed client's held requests, except turns.

        The turns still begin; nobody gets the answer.
        """
        for request in [each for each in self.state.restart.held if each.client == client.id]:
            if request.runs_alone:
                request.client, request.account = None, DEPARTED
            else:
                self.state.restart.held.remove(request)
                self.client_requests.drop(request)

    def _expire_held(self) -> float:
        state = self.state
        since = state.now - state.limits.request_deadline
        for request in [each for each in self.state.restart.held if each.since <= since]:
            self.state.restart.held.remove(request)
            self.client_requests.drop(request)
            text = f"a restart of the app-server waits for {', '.join(self.waits_for())}: try again"
            self.client_requests.fail(request, jsonrpc.DEADLINE_PASSED, text)
        oldest = min((each.since for each in self.state.restart.held), default=NEVER)
        return oldest + state.limits.request_deadline

    def stop_if_quiet(self) -> None:
        """Stop the app-server for a planned restart, once that disturbs nobody."""
        ready = self.state.appserver.state is AppServerState.READY
        restart = self.state.restart
        if restart.requests and ready and not restart.stopping and not self.waits_for():
            restart.stopping = True
            self.state.out.append(StopUpstream())

    def waits_for(self) -> list[str]:
        """Return what a planned restart waits for, in words."""
        if self.state.restart.at_once:
            return []
        state = self.state
        turns = sum(each.running.turn is not None for each in state.threads.known.values())
        pending = sum(1 for _ in state.pending_requests.pending())
        processes = sum(
            claim.ended_by not in BEGUN_AGAIN for _, claim in state.scoped_ids.running()
        )
        reasons = {
            f"{turns} running turn(s)": turns,
            f"{pending} server request(s)": pending,
            f"{processes} process(es)": processes,
            "requests in flight": state.scheduler.busy,
        }
        return [words for words, applies in reasons.items() if applies]

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def on_timer(self) -> float:
        """Watch an app-server that is silent or absent; returns when to do so again."""
        state = self.state
        if state.appserver.state is AppServerState.READY:
            return min(self._check_for_hang(), self._expire_held())
        since = state.now - state.limits.coming_up
        for request in state.scheduler.drop_queued(asked_before=since):
            text = f"the app-server did not come up within {state.limits.coming_up:g} s"
            self.client_requests.lost(request, text)
        return min(state.scheduler.oldest_queued() + state.limits.coming_up, self._expire_held())

    def _check_for_hang(self) -> float:
        state, probe = self.state, self._probe
        if probe is not None and probe.since < state.appserver.last_heard:
            self._probe = probe = None  # the app-server has sent something else meanwhile
        if probe is None:
            due = state.appserver.last_heard + state.limits.probe_interval
            if state.now < due:
                return due
            method, params = "thread/loaded/list", {"limit": 1}
            self._probe = self.client_requests.ask_for_broker(method, params, _PROBE)
            self._given_up_at = state.now + state.limits.probe_deadline
        if state.now > self._given_up_at + OWN_DELAY:
            self._given_up_at = state.now + state.limits.probe_deadline
        if state.now < self._given_up_at:
            return self._given_up_at
        reason = f"no sign of life within {state.limits.probe_deadline:g} s"
        state.out.append(KillUpstream(reason))
        return NEVER


_NO_PARAMS = ItemParams()
_PROBE = RequestRule(waits=True)  # it takes no slot: that none is free may be the cause

_PROCESS_GONE: dict[str, object] = {
    "exitCode": -1,
    "stdout": "",
    "stdoutCapReached": False,
    "stderr": "the app-server that ran this process has ended",
    "stderrCapReached": False,
}
