"""``mux/audit/list``: who did what, from the audit log."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from mux.core.extension.parts import Described, method
from mux.core.protocol.envelope.text_limits import LONGEST_NAME, Name

MOST_RECORDS = 200
"""Records of one page: some screens of a phone."""

FIRST_RECORDS = 50
"""Records of a page, if the client doesn't say."""

MOST_KINDS = 64
"""Kinds named in one request: there are fewer."""


class AuditParams(msgspec.Struct):
    """Params of ``mux/audit/list``.

    ``kinds``: kinds of records, or the part before the `/` of several kinds; empty: all.
    ``cursor``: the ``nextCursor`` of the page before.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_RECORDS)] = FIRST_RECORDS
    cursor: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None
    kinds: Annotated[list[Name], msgspec.Meta(max_length=MOST_KINDS)] = []


class Actor(msgspec.Struct):
    """The one who acted.

    ``client``, ``name``: of the program, if one acted. ``address``: where it connected from.
    """

    principal: str
    client: int | None = None
    name: str | None = None
    address: str | None = None


class AuditRecord(msgspec.Struct):
    """A record of the log.

    ``n``: its number. ``at``: Unix seconds. ``fields``: the fields that its kind has besides.
    """

    n: int
    at: float
    kind: str
    by: Actor | None
    fields: dict[str, Any]


class AuditPage(msgspec.Struct):
    """A page of records, the newest first.

    ``nextCursor``: null if there are no older records. A page reads a bounded part of the log, so
    it may have fewer records than wanted, or none, and still a ``nextCursor``. ``unreadable``: the
    number of lines passed over that are no records; `appmux audit --verify` on the host says what
    became of them.
    """

    records: list[AuditRecord]
    nextCursor: str | None
    unreadable: int


_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"

METHODS: dict[str, Described] = {
    "mux/audit/list": method(
        "Who did what, newest first.",
        AuditParams(20, kinds=["device", "approval/answered"]),
        AuditPage(
            [
                AuditRecord(
                    n=4711,
                    at=1790000042.5,
                    kind="approval/answered",
                    by=Actor("phone", 7, "appmux-page", "100.64.0.9"),
                    fields={
                        "approval": 1880000000000001,
                        "method": "item/commandExecution/requestApproval",
                        "thread": _THREAD,
                        "decision": "accept",
                        "after": 11.25,
                        "policy": "first",
                    },
                ),
                AuditRecord(
                    n=4690,
                    at=1790000001.0,
                    kind="device/paired",
                    by=Actor("local"),
                    fields={"device": "phone", "scopes": ["approve", "observe"]},
                ),
            ],
            "2026-09-21-000000004001.jsonl:8104",
            0,
        ),
    ),
}
