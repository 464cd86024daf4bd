"""Deduplication: a message that is sent again with its sender's id isn't run again.

A phone that lost its connection doesn't know whether its ``turn/start`` arrived. With a
``clientUserMessageId`` it may simply send it once more: the second attempt gets the first one's
answer, now or when that comes. Ids are a principal's own, per thread. An id whose first attempt
failed is forgotten, so that the retry runs; so is an id whose turn was taken back
(``thread/revert``), since whoever sends it again means it to run again.

``responses`` and ``turn_queue`` report the outcomes.
"""

from __future__ import annotations

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import ClientId, Owner
from mux.core.protocol.envelope import jsonrpc, text_limits
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.requests.sent_messages import MessageKey, message_key
from mux.core.state.state import State

REVERT = "thread/revert"
ID = "clientUserMessageId"

SENDS = frozenset({"turn/start", "turn/steer"})
"""The methods that carry a ``clientUserMessageId``."""


class _Turn(msgspec.Struct):
    id: str


class _Result(msgspec.Struct):
    turn: _Turn | None = None
    turnId: str | None = None


class _Revert(msgspec.Struct):
    threadId: str
    beforeTurnId: str


class _RevertRequest(msgspec.Struct):
    params: _Revert


class Deduplicator(Part):
    """Recognizes the messages that were sent before (``state.sent_messages``)."""

    state: State

    def is_again(self, client: Client, message: ClientMessage) -> bool:
        """Return whether the message was sent before; its answer is seen to here then.

        True also for a message whose id is too long to be remembered: it gets an error.
        """
        key = self._key(client, message)
        if key is not None and not text_limits.is_short(key[-1]):
            text = f"`clientUserMessageId` is {text_limits.TOO_LONG}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return True
        first = self.state.sent_messages.get(key)
        if key is None or first is None:
            return False
        self.state.sent_messages.used(key)
        if first.result is None:
            first.waiting.append((client.id, message.id))
        else:
            self._answer(client.id, message.id, "result", first.result)
        return True

    def first(self, client: Client, message: ClientMessage) -> MessageKey | None:
        """Remember a message that goes upstream; returns its key for ``Request.sent``."""
        key = self._key(client, message)
        if key is not None:
            self.state.sent_messages.add(key)
        return key

    def _key(self, client: Client, message: ClientMessage) -> MessageKey | None:
        if message.method not in SENDS:
            return None
        return message_key(client.principal, message.thread, message.text(ID))

    def settled(self, request: Request, line: bytes) -> None:
        """Give the answer to a first attempt, ``result`` or ``error``, to all that wait for it."""
        first = self.state.sent_messages.get(request.sent)
        if first is None or request.sent is None:
            return
        self.state.sent_messages.changed(request.sent)
        fields = jsonrpc.read_fields(line) or {}
        kind = "result" if "result" in fields else "error"
        first.result = fields.get("result")
        if first.result is None:
            self.state.sent_messages.forget(request.sent)
        else:
            first.turn = _turn_named(first.result)
        waiting, first.waiting = first.waiting, []
        for client, origin in waiting:
            self._answer(client, origin, kind, fields.get(kind, b"null"))

    def began(self, owner: Owner, params: bytes, turn: bytes) -> None:
        """Remember the turn (its JSON text) that a queued message, answered before, has become."""
        named = jsonrpc.read_fields(params) or {}
        thread, id = (jsonrpc.read_text(named.get(name)) for name in ("threadId", ID))
        key = message_key(owner.principal, thread, id)
        first = self.state.sent_messages.get(key)
        if first is not None and key is not None:
            self.state.sent_messages.changed(key)
            first.turn = _turn_named(jsonrpc.write({"turn": turn}))

    def reverted(self, request: Request) -> None:
        """Forget ids whose turns a ``thread/revert`` took back: that turn and all later ones.

        Turn ids are UUIDs that begin with the moment (version 7): a later one is greater.
        """
        try:
            params = _revert_decoder.decode(request.line).params
        except msgspec.DecodeError:
            return  # of a shape that this version doesn't know
        sent = self.state.sent_messages
        for key, first in list(sent.firsts.items()):
            if key[1] == params.threadId and (first.turn or "") >= params.beforeTurnId:
                sent.forget(key)

    def _answer(self, client: ClientId, origin: bytes, kind: str, value: bytes) -> None:
        if client in self.state.clients:
            self.state.answer(client, jsonrpc.write({"id": origin, kind: value}), "turn/start")


def _turn_named(result: bytes) -> str | None:
    """Return the turn in the result of a turn's start or steer."""
    try:
        outcome = _result_decoder.decode(result)
    except msgspec.DecodeError:
        return None
    return outcome.turn.id if outcome.turn is not None else outcome.turnId


_result_decoder = msgspec.json.Decoder(_Result)
_revert_decoder = msgspec.json.Decoder(_RevertRequest)
