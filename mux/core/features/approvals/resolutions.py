"""The ends of server requests: by the app-server's word, or with their turn, thread or app-server.

Clients that show a request are notified that it is over, as natively.

Used by ``server_requests``, ``recovery`` and ``NotificationRouter``.
"""

from __future__ import annotations

from mux.core.audit import audit_approvals
from mux.core.features.approvals import outcomes
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import OfferTo
from mux.core.state.requests.pending_requests import RESOLVED, ServerRequest
from mux.core.state.state import State


class Resolutions(Part):
    """Resolved, withdrawn and lost requests."""

    state: State

    def resolved(self, line: bytes) -> str | None:
        """End a request by the app-server's ``resolved``; returns the request's thread."""
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"")) or {}
        request = self.resolve(params.get("requestId", b""))
        if request is None:
            return None
        own = jsonrpc.write(params | {"requestId": b"%d" % request.id})
        self._notify_resolved(request, jsonrpc.write(fields | {"params": own}))
        return request.thread

    def resolve(self, upstream: bytes) -> ServerRequest | None:
        """End the request that the app-server knows by this id; None if there is none."""
        request = self.state.pending_requests.resolve(upstream)
        if request is not None:
            audit_approvals.over(self.state, request)
        return request

    def _notify_resolved(self, request: ServerRequest, message: bytes) -> None:
        outcomes.notify(self.state, request)
        clients = self.state.clients
        recipients = tuple(id for id in request.offered if RESOLVED not in clients[id].opted_out)
        self.state.publish_to_some(recipients, request.thread, RESOLVED, message)

    def resolve_all(self) -> None:
        """End all requests, which went with the app-server; clients are to stop showing them."""
        for request in self.state.pending_requests.clear():
            audit_approvals.over(self.state, request)
            if request.thread is not None and request.rule.offer_to is not OfferTo.TOOL_OWNER:
                params = {"threadId": request.thread, "requestId": request.id}
                self._notify_resolved(request, jsonrpc.notification(RESOLVED, params))

    def turn_over(self, thread: str, turns: tuple[str, ...], line: bytes) -> None:
        """End the requests of a turn that is over by ``line``: they can't be answered any more.

        For tool calls the app-server doesn't send ``resolved``. For others it mostly does, a moment
        later. If the request was withdrawn here, that notification is sent to nobody.
        """
        for request in list(self.state.pending_requests.pending(thread)):
            if request.rule.offer_to is OfferTo.TOOL_OWNER:
                self.state.pending_requests.resolve(request.upstream)
            elif request.turn in turns:
                self._withdraw(request, line)

    def thread_over(self, thread: str, line: bytes) -> None:
        """End the requests of a thread that is over by ``line``: it is closed, say."""
        for request in list(self.state.pending_requests.pending(thread)):
            self._withdraw(request, line)

    def _withdraw(self, request: ServerRequest, line: bytes) -> None:
        """End a request that ``line`` made obsolete.

        Clients that show it are notified, as natively.
        """
        self.resolve(request.upstream)
        if request.rule.offer_to is OfferTo.TOOL_OWNER:
            return  # no client expects `resolved` for these
        params = {"threadId": request.thread, "requestId": request.id}
        notification = jsonrpc.read_fields(jsonrpc.notification(RESOLVED, params)) or {}
        at = {"emittedAtMs": (jsonrpc.read_fields(line) or {}).get("emittedAtMs", b"")}
        self._notify_resolved(
            request, jsonrpc.write(notification | (at if at["emittedAtMs"] else {}))
        )
