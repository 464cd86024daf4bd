"""``appmux`` without its journal, for `features` to measure against. Not for use.

Messages are still numbered, as clients see that; but none is kept, in memory or on disk. So nobody
may lag or come back here. Run as ``python -m bench.unjournaled serve …``.

Hands to: ``mux``, whose journal it has made hollow.
"""

from __future__ import annotations

from mux.cli.main import main
from mux.core.protocol.journal_entry import Entry
from mux.core.state.journal import Journal
from mux.storage.journal import Store

_NOTHING = Entry(0, None, "", b"")


def _number(journal: Journal, _thread: str | None, _method: str, _message: bytes) -> Entry:
    journal.head += 1
    return _NOTHING


def _keep_nothing(_store: Store, *_entries: Entry) -> None: ...


if __name__ == "__main__":
    Journal.add = _number  # type: ignore[method-assign,assignment]
    Store.append = _keep_nothing  # type: ignore[method-assign,assignment]
    main()
