"""The files that a thread's messages tell of, and how: changed, created, generated, brought, named.

Used by ``thread_files``, which reads the messages from the journal.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from mux.core.extension.files import FileAdded, How, ThreadFile
from mux.core.features.history.file_changes import changes_in
from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry
from mux.core.state.clients.client import ADDED

MOST: Final = 1000
"""Files of one thread that are told, the latest: more than anybody looks through."""

COMPLETED: Final = "item/completed"


def absolute(path: str, directory: str) -> str:
    """Return a path as one text: from the root, without ``.`` and ``..``."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{directory}/{path}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


class FileList(Part):
    """The files told of so far, by path, the latest last."""

    directory: str
    """The thread's; paths may start from there."""
    files: OrderedDict[str, ThreadFile] = msgspec.field(default_factory=OrderedDict)
    cut: bool = False
    """True if there were more than are kept."""

    def add(self, entry: Entry) -> None:
        """Add one message of the thread, in order."""
        try:
            if entry.method == ADDED:
                added = _added_decoder.decode(entry.message).params
                self._put(added.path, "uploaded", None)
            elif entry.method == COMPLETED:
                params = _line_decoder.decode(entry.message).params
                self._item(bytes(params.item), params.turnId)
        except msgspec.DecodeError:
            return  # of a shape that this version doesn't know

    def _item(self, text: bytes, turn: str | None) -> None:
        item = _item_decoder.decode(text)
        match item.type:
            case "fileChange" if item.status == "completed":
                self._changes(text, turn)
            case "imageGeneration" if item.savedPath:
                self._put(item.savedPath, "generated", turn)
            case "imageView" if item.path:
                self._put(item.path, "named", turn)
            case "userMessage":
                for part in item.content:
                    if part.path:
                        self._put(part.path, "named", turn)

    def _changes(self, text: bytes, turn: str | None) -> None:
        for change in changes_in(text, diffs=False):
            if change.kind == "delete":
                self.files.pop(absolute(change.path, self.directory), None)
            elif change.movedTo:
                self.files.pop(absolute(change.path, self.directory), None)
                self._put(change.movedTo, "changed", turn)
            else:
                self._put(change.path, "created" if change.kind == "add" else "changed", turn)

    def _put(self, path: str, how: How, turn: str | None) -> None:
        path = absolute(path, self.directory)
        before = self.files.pop(path, None)
        if before is not None and (how == "named" or before.how == "created"):
            how = before.how  # what is known of it says more than that it was named again
        name = path.rpartition("/")[2]
        self.files[path] = ThreadFile(path=path, name=name, how=how, turnId=turn)
        if len(self.files) > MOST:
            self.files.popitem(last=False)
            self.cut = True


class _Part(msgspec.Struct):
    path: str = ""


class _Item(msgspec.Struct):
    type: str
    status: str = ""
    path: str = ""
    savedPath: str | None = None
    content: list[_Part] = []


class _Params(msgspec.Struct):
    item: msgspec.Raw
    turnId: str | None = None


class _Line(msgspec.Struct):
    params: _Params


class _AddedLine(msgspec.Struct):
    params: FileAdded


_line_decoder = msgspec.json.Decoder(_Line)
_item_decoder = msgspec.json.Decoder(_Item)
_added_decoder = msgspec.json.Decoder(_AddedLine)
