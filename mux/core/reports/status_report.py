"""The core's part of ``mux/status``, as JSON values.

``dispatcher`` adds what only the shells know (pid, listeners, bytes owed).
"""

from __future__ import annotations

from typing import Any

import msgspec

from mux.core.broker import Broker
from mux.core.features.clients.attention import Look
from mux.core.policy.principal import Owner
from mux.core.state.app_server import AppServer, AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.threads.threads import Thread
from mux.core.state.turns.turn_queues import TurnQueue


def report(broker: Broker, now: float) -> dict[str, Any]:
    """Return ``appServer``, ``journal``, ``clients``, ``threads``, ``serverRequests``.

    Times are in seconds.
    """
    state, recovery = broker.state, broker.recovery
    head, glance = state.journal.head, broker.attention.glance()
    return {
        "appServer": {
            "version": state.appserver.version,
            "state": state.appserver.state.value,
            "generation": state.appserver.generation,
            "nextStartSeconds": _next_start(state.appserver, now),
            "uptimeSeconds": round(now - state.appserver.started, 3),
            "lastEnd": _last_end(state.appserver, now),
            "requestsInFlight": state.scheduler.in_flight,
            "requestsWaiting": state.scheduler.waiting,
            "requestsQueued": state.scheduler.queued,
            "restartWaitsFor": recovery.waits_for() if state.restart.requests else [],
        },
        "journal": {
            "epoch": state.journal.epoch,
            "seq": head,
            "earliest": state.journal.earliest,
        },
        "clients": [
            _client(client, now, head) | {"person": broker.attention.is_a_persons(client)}
            for client in state.clients.values()
        ],
        "threads": [
            _thread(thread, state.turn_queues.get(thread.id), glance.has_person(thread.id))
            for thread in state.threads.known.values()
            if _shown(thread)
        ],
        "serverRequests": [
            _server_request(each, now) | broker.voting.to_json(each)
            for each in state.pending_requests.pending()
        ],
    }


def _next_start(appserver: AppServer, now: float) -> float | None:
    if appserver.state is not AppServerState.DOWN:
        return None
    return round(max(0.0, appserver.next_start - now), 3)


def _last_end(appserver: AppServer, now: float) -> dict[str, Any] | None:
    end = appserver.last_end
    if end is None:
        return None
    return {
        "generation": end.generation,
        "secondsAgo": round(now - end.at, 3),
        "reason": end.reason or None,
    }


def _client(client: Client, now: float, head: int) -> dict[str, Any]:
    return {
        "id": client.id,
        "state": client.state.value,
        "name": client.info.name if client.info else None,
        "version": client.info.version if client.info else None,
        "principal": client.principal.name,
        "principalKind": client.principal.kind,
        "scopes": sorted(client.principal.scopes),
        "transport": client.transport,
        "peer": client.peer,
        "sinceSeconds": round(now - client.since, 3),
        "droveSeconds": None if client.drove is None else round(now - client.drove, 3),
        "threads": list(client.follows),
        "behind": None if client.backlog is None else head - client.backlog.cursor,
        "overrides": client.overrides and msgspec.to_builtins(client.overrides),
    }


def _shown(thread: Thread) -> bool:
    return bool(thread.followers) or thread.subscribed


def _thread(thread: Thread, queue: TurnQueue | None, look: Look | None) -> dict[str, Any]:
    return {
        "id": thread.id,
        "title": thread.name or None,
        "directory": thread.directory or None,
        "parent": thread.parent,
        "status": thread.status,
        "turn": thread.running.turn,
        "turnBy": _owner(thread.running.actor),
        "followers": list(thread.followers),
        "queued": 0 if queue is None else len(queue.turns),
        "held": None if queue is None else queue.held,
        "watchedBy": None if look is None else look[0].id,
    }


def _owner(owner: Owner | None) -> dict[str, Any] | None:
    if owner is None:
        return None
    return {"client": owner.client, "name": owner.program, "principal": owner.principal.name}


def _server_request(request: ServerRequest, now: float) -> dict[str, Any]:
    return {
        "id": request.id,
        "method": request.method,
        "thread": request.thread,
        "ageSeconds": round(now - request.since, 3),
        "offeredTo": list(request.offered),
        "abstained": sorted(request.abstained),
        "answeredBy": request.answered_by,
    }
