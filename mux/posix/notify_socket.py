"""The socket by which a service tells systemd its state (sd_notify(3)): one datagram a state.

Used by ``server`` and ``supervisor``, whichever is systemd's main process.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Mapping, Sequence


def send(environ: Mapping[str, str], state: str, descriptors: Sequence[int] = ()) -> None:
    """Send a state to the socket in ``NOTIFY_SOCKET``, if there is one. Raises ``OSError``.

    ``descriptors`` go along, for systemd's store.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(address)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        datagrams.sendmsg([state.encode()], rights if descriptors else [])
