"""The compression that a client's upgrade offers, and which one is taken.

Used by ``routes``, which answers the upgrade, and ``connection``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from mux.downstream.websocket import deflate
from mux.downstream.websocket.compression import Packer, Unpacking

ZSTD_STREAM: Final = b"zstd-stream-v1"


class ZstdStream(msgspec.Struct, frozen=True):
    """codex's own compression, taken."""

    answer: bytes = b"X-Codex-App-Server-Compression: " + ZSTD_STREAM
    """The header of the 101 response that takes it."""


Offer = deflate.Deflate | ZstdStream


def offered(extensions: Iterable[bytes], codex: Iterable[bytes]) -> Offer | None:
    """Choose from what a client offers; return None if there is nothing to take.

    ``extensions`` are the values of ``Sec-WebSocket-Extensions``, of which each may list several,
    ``codex`` those of ``X-Codex-App-Server-Compression``.
    """
    if [value.strip() for value in codex] == [ZSTD_STREAM]:
        return ZstdStream()
    offers = (offer for value in extensions for offer in value.split(b","))
    return next(filter(None, map(deflate.taken, offers)), None)


def packer(offer: Offer) -> Packer:
    """Return what compresses the messages to one client."""
    if isinstance(offer, deflate.Deflate):
        return deflate.Deflater(offer.window_bits, offer.forgets)
    from mux.downstream.websocket import zstd_stream  # noqa: PLC0415 (few clients want it)

    return zstd_stream.ZstdPacker()


def unpacking(offer: Offer) -> Unpacking:
    """Return what reads one client's messages."""
    if isinstance(offer, deflate.Deflate):
        return deflate.Inflater()
    from mux.downstream.websocket import zstd_stream  # noqa: PLC0415 (few clients want it)

    return zstd_stream.ZstdUnpacking()
