"""The parts that the kinds of compression of a WebSocket's messages share: the two ends of each.

The kinds: ``deflate``, which every browser offers, and ``zstd_stream``, codex's own. ``offers``
chooses one, ``compressed_stream`` applies it.
"""

from __future__ import annotations

from typing import Final, Protocol

UNPACKED_BYTES: Final = 16 * 2**20
"""Most bytes of a client's message once it is unpacked, which is 50 ms of work: a picture of 8 MiB
in base64, with room. A message that is sent plain may be as long as ever."""


class TooLongError(ValueError):
    """A message is longer than is taken, once it is unpacked."""


class DamagedError(ValueError):
    """A message can't be unpacked."""


class Unpacking(Protocol):
    """Reads one client's compressed messages, one after the other."""

    first: frozenset[int]
    """First bytes, but for FIN, of the frames that begin a compressed message."""
    only: bool
    """True if every message of the client is a compressed one."""

    def message(self, packed: bytes, opcode: int, limit: int) -> bytes | None:
        """Return the text of one whole message, of at most ``limit`` bytes; None for a binary one.

        It isn't checked for UTF-8.

        Raises ``TooLongError``, ``DamagedError``.
        """


class Packer(Protocol):
    """Compresses one message after the other."""

    first: int
    """The first byte of the frame of a compressed text message."""

    def feed(self, part: memoryview) -> bytes:
        """Compress a part of the message; returns what is ready."""

    def finish(self) -> bytes:
        """Return the rest of the message."""
