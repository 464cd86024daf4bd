"""The process at the far end of a unix socket, as the kernel knows it."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable

import msgspec

_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES = 0, 1, 76
"""Constants of macOS' <sys/un.h> and <sys/ucred.h>; Python has no names for them."""


class Peer(msgspec.Struct, frozen=True):
    """The process at the far end of a unix socket; fields that the system doesn't tell are None."""

    pid: int | None = None
    uid: int | None = None


def who_is_there(getsockopt: Callable[[int, int, int], bytes]) -> Peer:
    """Return the peer of a connected unix socket, by the socket's ``getsockopt``.

    Raises ``OSError`` if the peer has gone.
    """
    if sys.platform == "linux":
        ucred = struct.Struct("3i")
        raw = getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
        pid, uid, _gid = ucred.unpack(raw)
        peer = Peer(pid, uid)
    elif sys.platform == "darwin":
        # struct xucred: version, uid, number of groups, 16 groups.
        raw = getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        peer = Peer(uid=struct.unpack_from("=II", raw)[1])
    else:
        peer = Peer()
    return peer
