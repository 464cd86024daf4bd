"""Files that people bring to a thread: its followers are told, and the audit log.

The bytes never come here: ``mux.files`` has put them in place already.
"""

from __future__ import annotations

import attrs

from mux.core.events import FilePlaced
from mux.core.extension.files import FileAdded
from mux.core.protocol import jsonrpc
from mux.core.state.client import ADDED
from mux.core.state.state import State


@attrs.define(eq=False, repr=False)
class ThreadFiles:
    """Tells of the files of threads."""

    state: State

    def placed(self, file: FilePlaced) -> None:
        """A file lies where an agent finds it."""
        self.state.record(
            "file/received",
            by={"principal": file.by, "identity": file.owner},
            thread=file.thread,
            path=file.path,
            bytes=file.bytes,
            sha256=file.sha256,
        )
        if file.thread is None or file.thread not in self.state.threads.known:
            return
        added = FileAdded(
            threadId=file.thread,
            path=file.path,
            name=file.name,
            bytes=file.bytes,
            sha256=file.sha256,
            type=file.type,
            by=file.by,
        )
        self.state.publish(file.thread, ADDED, jsonrpc.notification(ADDED, added))
