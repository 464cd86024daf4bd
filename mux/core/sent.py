"""Messages sent with an id of their sender's: sent again, they aren't run again.

A phone that lost its connection doesn't know whether its ``turn/start`` arrived. With a
``clientUserMessageId`` it may simply send it once more: the second gets the first one's answer, now
or when that comes. Ids are a principal's own, per thread. One whose first try failed is forgotten,
so that the retry runs.

Heard from: ``broker``.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
import msgspec

from mux.core import jsonrpc, texts
from mux.core.client import Client
from mux.core.events import ClientId
from mux.core.jsonrpc import ClientMessage
from mux.core.requests import Request
from mux.core.state import State
from mux.core.texts import Name

SENDS = frozenset({"turn/start", "turn/steer"})
"""The methods that carry a ``clientUserMessageId``."""

Key = tuple[tuple[str, str], str, str]


@attrs.define(eq=False, repr=False)
class _First:
    """The first message under an id. ``result``: of its answer, as JSON text, once it has one."""

    result: bytes | None = None
    waiting: list[tuple[ClientId, bytes]] = attrs.field(factory=list)


class _Params(msgspec.Struct):
    threadId: Name
    clientUserMessageId: str | None = None


@attrs.define(eq=False, repr=False)
class Sent:
    """What was sent, by principal, thread and message id."""

    state: State
    _firsts: OrderedDict[Key, _First] = attrs.field(factory=OrderedDict)

    def is_again(self, client: Client, message: ClientMessage) -> bool:
        """Whether it was sent before; then its answer is seen to here.

        So it is for one whose id is too long to be remembered.
        """
        key = self._key(client, message)
        if key is not None and not texts.is_short(key[-1]):
            text = f"`clientUserMessageId` is {texts.TOO_LONG}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return True
        first = self._firsts.get(key) if key is not None else None
        if key is None or first is None:
            return False
        self._firsts.move_to_end(key)
        if first.result is None:
            first.waiting.append((client.id, message.id))
        else:
            self._answer(client.id, message.id, "result", first.result)
        return True

    def first(self, client: Client, message: ClientMessage) -> Key | None:
        """It goes upstream: remember it. Returns what to give to ``settled``."""
        key = self._key(client, message)
        if key is not None:
            self._firsts[key] = _First()
            while len(self._firsts) > self.state.limits.remembered_messages:
                self._firsts.popitem(last=False)
        return key

    def _key(self, client: Client, message: ClientMessage) -> Key | None:
        if message.method not in SENDS:
            return None
        try:
            params = _decoder.decode(message.params)
        except msgspec.DecodeError:
            return None
        if not params.clientUserMessageId:
            return None
        return (client.principal.identity, params.threadId, params.clientUserMessageId)

    def settled(self, request: Request, line: bytes) -> None:
        """The first one has its answer: ``line`` carries ``result`` or ``error``."""
        first = self._firsts.get(request.sent) if request.sent is not None else None
        if first is None or request.sent is None:
            return
        fields = jsonrpc.read_fields(line) or {}
        kind = "result" if "result" in fields else "error"
        first.result = fields.get("result")
        if first.result is None:
            del self._firsts[request.sent]
        waiting, first.waiting = first.waiting, []
        for client, origin in waiting:
            self._answer(client, origin, kind, fields.get(kind, b"null"))

    def _answer(self, client: ClientId, origin: bytes, kind: str, value: bytes) -> None:
        if client in self.state.clients:
            self.state.send(client, jsonrpc.write({"id": origin, kind: value}), "turn/start")


_decoder = msgspec.json.Decoder(_Params)
