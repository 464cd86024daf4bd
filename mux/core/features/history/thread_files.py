"""The files of threads: what people bring is told, what a thread touched is listed and let out.

The bytes never come here: ``mux.files`` has put them in place already, or opens them.

What a thread changed, created, generated or was brought is for whoever sees the thread. A file that
its items only name needs ``drive``: an agent was asked to look at it. Any other needs ``admin``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mux.core.audit import audit_events
from mux.core.commands import AnswerOutside
from mux.core.events import FilePlaced
from mux.core.extension.files import FileAdded, FilesOf, OpenParams
from mux.core.extension.files import ThreadFiles as Listed
from mux.core.features.history.file_list import FileList, absolute
from mux.core.features.history.journal_sweep import JournalSweeps, Sweep
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.scope import Scope
from mux.core.state.clients.client import ADDED, Client
from mux.core.state.state import State

LIST: Final = "mux/files/list"


class ToOpen(msgspec.Struct, frozen=True):
    """A file that the shells are to open, and the directory beneath which it may lie."""

    path: str
    directory: str


class ThreadFiles(Part):
    """Tells of the files of threads."""

    state: State
    sweeps: JournalSweeps

    # -- what is brought ---------------------------------------------------------------------------

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

    # -- what is there -----------------------------------------------------------------------------

    def handle(self, client: Client, message: ClientMessage) -> None:
        """List a thread's files, or let one of them out."""
        try:
            if message.method == LIST:
                thread, path = _list_decoder.decode(message.params).threadId, None
            else:
                params = _open_decoder.decode(message.params)
                thread, path = params.threadId, params.path
        except msgspec.DecodeError as wrong:
            text = f"`{message.method}`: {wrong}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        thread = message.thread or thread
        known = self.state.threads.known.get(thread)
        files = FileList(known.directory if known is not None else "")

        def done(sweep: Sweep) -> None:
            if path is None:
                self._list(sweep, files)
            else:
                self._open(client, message, path, files)

        self.sweeps.begin(client, message, thread, files, done=done)

    def _list(self, sweep: Sweep, files: FileList) -> None:
        listed = Listed(list(reversed(files.files.values())), sweep.complete and not files.cut)
        self.state.answer(sweep.client, jsonrpc.result(sweep.origin, listed), LIST)

    def _open(self, client: Client, message: ClientMessage, path: str, files: FileList) -> None:
        path = absolute(path, files.directory)
        file = files.files.get(path)
        needs: Scope = "admin" if file is None else "drive" if file.how == "named" else "observe"
        if needs not in client.principal.scopes:
            reason = "isn't one of the thread's files" if file is None else "is only named there"
            text = f"`{message.method}`: {path} {reason}, and needs the scope `{needs}`"
            has = sorted(client.principal.scopes)
            data = {"method": message.method, "needs": needs, "has": has}
            self.state.error(client.id, message.id, jsonrpc.FORBIDDEN, text, data)
            audit_events.refused(self.state, client, message.method, needs)
            return
        self.state.record("file/opened", by=audit_events.actor_of(client), path=path)
        params = msgspec.json.encode(ToOpen(path, files.directory))
        self.state.out.append(AnswerOutside(client.id, message.id, message.method, params))


_list_decoder = msgspec.json.Decoder(FilesOf)
_open_decoder = msgspec.json.Decoder(OpenParams)
