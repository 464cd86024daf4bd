"""Answers ``mux/audit/list`` from the files of the audit log, in a thread.

The core has checked the scope. What was recorded in the last moment may not be on the disk yet: it
is in the next answer.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import trio

from mux.core.extension.audit import Actor, AuditPage, AuditParams, AuditRecord
from mux.core.part import Part
from mux.errors import AppmuxError
from mux.storage import audit_pages

_params = msgspec.json.Decoder(AuditParams)


class AuditRequestError(AppmuxError):
    """A request for a page of the audit log whose params are wrong."""


class AuditRequests(Part):
    """Reads pages of one broker's audit log, one after another."""

    directory: Path
    _one_reader: trio.CapacityLimiter = msgspec.field(
        default_factory=lambda: trio.CapacityLimiter(1)
    )

    async def list(self, params: bytes) -> AuditPage:
        """Return the page that a request wants. Raises ``AppmuxError``."""
        try:
            request = _params.decode(params)
        except msgspec.DecodeError as wrong:
            raise AuditRequestError(f"`mux/audit/list`: {wrong}") from wrong
        page = await trio.to_thread.run_sync(self._read, request, limiter=self._one_reader)
        return AuditPage(
            [_shown(each) for each in page.records], page.cursor, unreadable=page.unreadable
        )

    def _read(self, request: AuditParams) -> audit_pages.Page:
        return audit_pages.read_page(
            self.directory, limit=request.limit, cursor=request.cursor, kinds=request.kinds
        )


def _shown(record: dict[str, Any]) -> AuditRecord:
    n, at, kind = record.pop("n"), record.pop("at", ""), record.pop("kind")
    record.pop("before", None)
    return AuditRecord(n, _moment(at), kind, _actor(record.pop("by", None)), record)


def _moment(at: str) -> float:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:  # changed by somebody: the record is shown all the same
        return 0.0


def _actor(by: object) -> Actor | None:
    """Return who acted: records of devices and of pushes name the principal alone."""
    if isinstance(by, str):
        return Actor(by)
    if not isinstance(by, dict):
        return None
    client, name, address = by.get("client"), by.get("name"), by.get("from")
    return Actor(
        str(by.get("principal", "")),
        client if isinstance(client, int) else None,
        name if isinstance(name, str) else None,
        address if isinstance(address, str) else None,
    )
