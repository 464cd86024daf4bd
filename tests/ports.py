"""A port for tests: one that nobody else is given while the test runs.

Hands to: the tests that need a port's number before anybody listens there, or after.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, kept until the end of the block.

    Who connects is refused. Who wants to listen at this very number can, with SO_REUSEADDR, as
    servers do; the kernel gives it to nobody who lets it choose. Elsewhere than on Linux two can't
    be bound to it, so there it is only free at present.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = int(kept.getsockname()[1])
        if sys.platform != "linux":
            kept.close()
        yield port
