"""``mux/files/*``: the files of a thread. Their bytes go by HTTP (``/v1/files``)."""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.extension.parts import Described, method, notification
from mux.core.protocol.envelope.text_limits import Name

How = Literal["changed", "created", "generated", "uploaded", "named"]
"""``named``: its items only tell of it, as of a picture that was looked at."""


class FilesOf(msgspec.Struct):
    """Params of ``mux/files/list``: the thread."""

    threadId: Name


class ThreadFile(msgspec.Struct, kw_only=True):
    """A file of a thread.

    ``path``: its path on the host. ``turnId``: the turn that named it last, or null.
    """

    path: str
    name: str
    how: How
    turnId: str | None


class ThreadFiles(msgspec.Struct):
    """The files of a thread, the latest first.

    ``complete: false``: the journal doesn't reach back to the thread's beginning.
    """

    files: list[ThreadFile]
    complete: bool


class OpenParams(msgspec.Struct):
    """Params of ``mux/files/open``.

    ``path``: a path from ``mux/files/list``, or any other, which needs more scopes.
    """

    threadId: Name
    path: str


class Opened(msgspec.Struct, kw_only=True):
    """The way to a file's bytes.

    ``url``: relative; it holds until the whole file was sent once, or until ``expiresInSeconds``
    are over.
    """

    url: str
    name: str
    bytes: int
    type: str
    expiresInSeconds: int


class FileAdded(msgspec.Struct, kw_only=True):
    """A file that somebody brought to the thread.

    ``by``: the principal's name. ``type``: as its sender says; empty if it says nothing. ``path``:
    on the host; an agent opens it there.
    """

    threadId: str
    path: str
    name: str
    bytes: int
    sha256: str
    type: str
    by: str


_THREAD = "0199b3f2-7f6a-7d30-a3f2-4e1c7d1f0a11"

METHODS: dict[str, Described] = {
    "mux/files/list": method(
        "The files that a thread changed, created, generated, was brought, or only named.",
        FilesOf(_THREAD),
        ThreadFiles(
            [
                ThreadFile(
                    path="/home/ada/app/report.md",
                    name="report.md",
                    how="created",
                    turnId="0199b3f2-8a10-7b11-8d43-0a5f6c2b9e77",
                )
            ],
            complete=True,
        ),
    ),
    "mux/files/open": method(
        "A URL to fetch a file once. One that is only named needs `drive`, any other `admin`.",
        OpenParams(_THREAD, "/home/ada/app/report.md"),
        Opened(
            url="/v1/files/of/9uYlVt4rFmB0qKxw3Zc2Nn8s",
            name="report.md",
            bytes=5120,
            type="text/markdown",
            expiresInSeconds=600,
        ),
    ),
}

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
