"""The beginning of a connection of a listener with TLS: a handshake, or a plain request.

Who speaks plain http to such a port has mistyped the address: they get one line with the right one.

Used by ``listener``.
"""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import Final

import structlog
import trio

from mux.downstream.http.head import HttpResponse, RequestHead
from mux.downstream.http.http import answer, read_head
from mux.downstream.sockets.streams import HANDSHAKE_DEADLINE, Encrypted, Patient
from mux.downstream.sockets.tls import Certificate

HANDSHAKE: Final = b"\x16"
"""The first byte of TLS: a handshake's record. No HTTP method begins so."""

log = structlog.get_logger()


async def begin(
    patient: Patient, certificate: Certificate, address: str, origin: str
) -> Encrypted | None:
    """Return the encrypted stream; None if the peer left, failed, or spoke plain http.

    ``origin``: where the page is, if that is known: it stands in the line for who speaks plainly.
    """
    first = await _first_byte(patient)
    if first not in (HANDSHAKE, b""):
        await _send_to_https(patient, address, origin)
        return None
    encrypted = Encrypted(patient, certificate.context)
    try:
        await encrypted.shake_hands()
    except trio.BrokenResourceError as failure:
        log.info("no TLS handshake", client=address, why=str(failure.__cause__ or failure))
        return None
    return encrypted


async def _first_byte(patient: Patient) -> bytes:
    """Return the first byte without taking it; none if none comes."""
    with trio.move_on_after(HANDSHAKE_DEADLINE):
        try:
            return await patient.socket.recv(1, socket.MSG_PEEK)
        except OSError:  # it is gone already
            pass
    return b""


async def _send_to_https(patient: Patient, address: str, origin: str) -> None:
    head = await read_head(patient)
    if head is None:
        return
    method = head.method if isinstance(head, RequestHead) else b"GET"
    line = f"https is needed here: {origin}/\n" if origin else "https is needed here\n"
    await answer(patient, HttpResponse(HTTPStatus.BAD_REQUEST, line), method, address)
