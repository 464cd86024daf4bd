"""The subject of a server request: its params, and the item that they name.

Used by ``approval_list``, ``approval_view``, ``server_requests`` and the notices.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State

LONGEST_ITEM: Final = 256 * 1024
"""Bytes of an item that is listed with its approval: nobody reads more of a change in a list."""


class WaitingRequest(msgspec.Struct, frozen=True):
    """A server request that waits for an answer, as JSON texts."""

    params: bytes
    item: bytes
    """The item that it is about; ``null`` if it is about none."""


def item_about(state: State, request: ServerRequest) -> bytes:
    """Return the item that a request is about, as it began: an approval of files doesn't name them.

    ``null`` if there is none, or it is longer than ``LONGEST_ITEM``.
    """
    id = jsonrpc.read_text((jsonrpc.read_fields(params_of(request)) or {}).get("itemId"))
    thread = state.threads.known.get(request.thread or "")
    item = thread.running.items.get(id or "") if thread is not None else None
    if item is None or len(item.started) > LONGEST_ITEM:
        return b"null"
    return (jsonrpc.read_fields(params_in(item.started)) or {}).get("item", b"null")


def params_of(request: ServerRequest) -> bytes:
    """Return a request's params, as JSON text."""
    return params_in(request.offer)


def params_in(line: bytes) -> bytes:
    """Return a message's params, as JSON text."""
    return (jsonrpc.read_fields(line) or {}).get("params", b"null")


def waiting_request(state: State, id: str) -> WaitingRequest | None:
    """Return the server request that waits for an answer under this id; None if none does."""
    request = state.pending_requests.get(id.encode())
    if request is None or request.answered:
        return None
    return WaitingRequest(params_of(request), item_about(state, request))
