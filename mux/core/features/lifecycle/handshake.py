"""The handshakes: the broker's own with each life of the app-server, and each client's with us.

A client's ``initialize`` is answered here, from what the app-server said to the broker's own. Until
the very first app-server has answered, a client's ``initialize`` waits, and so does what the client
asks behind it.

Used by ``client_messages`` for clients, by ``broker`` and ``responses`` for the app-server.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mux.core.audit import audit_events
from mux.core.commands import KillUpstream, LoadExperimentalSchema
from mux.core.extension.additions import Welcome
from mux.core.features.clients.attention import Attention
from mux.core.features.clients.presence import Presence
from mux.core.features.lifecycle.recovery import Recovery
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part, later
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.state.clients.client import AT_ONCE, Client, ClientState, InitializeParams
from mux.core.state.state import State

EXTENSION_VERSION = 1
"""The version of the extension: what clients that know the broker get beyond the app-server's
protocol."""


class Handshakes(Part):
    """The handshakes that are under way."""

    state: State
    client_requests: ClientRequests
    recovery: Recovery
    presence: Presence
    attention: Attention
    again: Callable[[Client, ClientMessage], None] = later()
    """Takes a message that waited for the first app-server."""
    waiting: dict[ClientId, list[ClientMessage]] = msgspec.field(default_factory=dict)
    """The messages of clients that wait for the first app-server."""

    # ── of clients ────────────────────────────────────────────────────────────────────────────

    def initialize(self, client: Client, message: ClientMessage) -> bool:
        """Answer a client's ``initialize``, or have it wait.

        Return False if its params can't be read: the app-server names the fault better than the
        broker could, in its own words.
        """
        state = self.state
        if not state.appserver.known:
            self.wait(client, message)
            return True
        try:
            params = _decoder.decode(message.params)
        except msgspec.ValidationError:
            return False
        if client.state is ClientState.READY:
            text = "Already initialized"
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
        elif (reason := params.refusal()) is not None:
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, reason)
        else:
            self._welcome(client, message, params)
        return True

    def wait(self, client: Client, message: ClientMessage) -> None:
        """Have a client's message wait until the first app-server is initialized."""
        waiting, limits = self.waiting.setdefault(client.id, []), self.state.limits
        size = sum(len(each.params) for each in (*waiting, message))
        if len(waiting) < limits.queued_per_client and size <= limits.queued_bytes_per_client:
            waiting.append(message)
        else:
            text = "Server overloaded; retry later."
            self.state.error(client.id, message.id, jsonrpc.OVERLOADED, text)

    def _welcome(self, client: Client, message: ClientMessage, params: InitializeParams) -> None:
        state = self.state
        is_device = client.principal.kind == "device"
        client.initialize(params, state.limits.device_window if is_device else AT_ONCE)
        # The answer to `initialize` goes out before everything else that the client is sent.
        self.presence.came(client)
        if client.focus is not None or client.acted:
            self.attention.changes += 1  # what was said before the handshake counts from now on
        state.threads.audience_changed()
        state.send(client.id, self._answer(client, message.id, params), message.method)
        for method, lines in state.appserver.greetings.items():
            if client.receives(method):
                for line in lines:
                    state.send(client.id, line, method)
        named = {"name": params.clientInfo.name, "version": params.clientInfo.version}
        principal = client.principal.name
        state.log("info", "client ready", client=client.id, principal=principal, **named)
        audit_events.attached(state, client)

    def _answer(self, client: Client, id: bytes, params: InitializeParams) -> bytes:
        result: dict[str, object] = dict(self.state.appserver.result_for(params.clientInfo))
        if client.wants_seq:
            result["appmux"] = Welcome(
                version=EXTENSION_VERSION,
                epoch=self.state.journal.epoch,
                seq=self.state.journal.head,
                began=self.state.journal.began,
                clientId=client.id,
                generation=self.state.appserver.generation,
            )
        return jsonrpc.result(id, result)

    def client_left(self, client: Client) -> None:
        """Drop what a departed client has waiting."""
        self.waiting.pop(client.id, None)

    # ── of the app-server ─────────────────────────────────────────────────────────────────────

    def upstream_started(self, generation: int) -> None:
        """Begin the handshake with an app-server that was just started."""
        self.state.appserver.begin(generation, self.state.now)
        self.state.record("appserver/started", generation=generation)
        self.state.out.append(LoadExperimentalSchema())
        self.client_requests.ask_for_broker("initialize", self.state.introduction.params())

    def upstream_initialized(self, line: bytes) -> None:
        """Handle the app-server's answer to ``initialize``: what waited for it goes on."""
        if not self.state.appserver.initialized(line):
            reason = "the app-server's answer to `initialize` can't be used"
            self.state.out.append(KillUpstream(reason))
            return
        self.state.durable.touch("app-server", "")
        self.state.forward(b'{"method":"initialized"}', "initialized")
        waiting, self.waiting = self.waiting, {}
        for id, messages in waiting.items():
            for message in messages:
                self.again(self.state.clients[id], message)
        self.recovery.resume()
        self.client_requests.pump()


_decoder = msgspec.json.Decoder(InitializeParams)
