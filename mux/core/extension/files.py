"""``mux/files/*``: files that people bring to a thread. Their bytes go by HTTP (``/v1/files``)."""

from __future__ import annotations

import msgspec

from mux.core.extension.parts import Described, notification


class FileAdded(msgspec.Struct, kw_only=True):
    """``by``: the principal's name. ``type``: as its sender says; empty if it says nothing.

    ``path`` is on the host; an agent opens it there.
    """

    threadId: str
    path: str
    name: str
    bytes: int
    sha256: str
    type: str
    by: str


_THREAD = "0199b3f2-7f6a-7d30-a3f2-4e1c7d1f0a11"

NOTIFICATIONS: dict[str, Described] = {
    "mux/files/added": notification(
        "A file was uploaded to a thread that you follow; numbered, so it is replayed.",
        FileAdded(
            threadId=_THREAD,
            path="/home/ada/app/uploads/screen.png",
            name="screen.png",
            bytes=184213,
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            type="image/png",
            by="Ada's phone",
        ),
    )
}
