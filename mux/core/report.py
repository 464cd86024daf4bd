"""What the broker knows of itself, as JSON values: the core's part of ``mux/status``.

Read by ``dispatcher``, which adds what only the shells know (pid, listeners, bytes owed).
"""

from __future__ import annotations

from typing import Any

from mux.core.approvals import ServerRequest
from mux.core.broker import Broker
from mux.core.client import Client
from mux.core.threads import Thread


def report(broker: Broker, now: float) -> dict[str, Any]:
    """``{"appServer", "clients", "threads", "serverRequests"}``; times in seconds ago."""
    return {
        "appServer": {
            "version": broker.appserver.version,
            "state": broker.appserver.state.value,
            "generation": broker.appserver.generation,
            "uptimeSeconds": round(now - broker.appserver.started, 3),
            "requestsInFlight": broker.flow.in_flight,
            "requestsWaiting": len(broker.flow.upstream) - broker.flow.in_flight,
            "requestsQueued": broker.flow.queued,
        },
        "clients": [_client(client, now) for client in broker.clients.values()],
        "threads": [_thread(thread) for thread in broker.threads.known.values() if _shown(thread)],
        "serverRequests": [_server_request(request, now) for request in broker.approvals.pending()],
    }


def _client(client: Client, now: float) -> dict[str, Any]:
    return {
        "id": client.id,
        "state": client.state.value,
        "name": client.info.name if client.info else None,
        "version": client.info.version if client.info else None,
        "principal": client.principal.name,
        "principalKind": client.principal.kind,
        "transport": client.transport,
        "peer": client.peer,
        "sinceSeconds": round(now - client.since, 3),
        "threads": list(client.follows),
    }


def _shown(thread: Thread) -> bool:
    return bool(thread.followers) or thread.subscribed


def _thread(thread: Thread) -> dict[str, Any]:
    return {
        "id": thread.id,
        "status": thread.status,
        "turn": thread.running.turn,
        "followers": list(thread.followers),
    }


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
