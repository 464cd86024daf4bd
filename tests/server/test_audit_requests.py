"""Requests for pages of the audit log: their params, and how records are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mux.core.extension.audit import Actor, AuditPage, AuditRecord
from mux.errors import AppmuxError
from mux.server.audit_requests import AuditRequests
from mux.storage import audit_chain
from mux.storage.audit_writer import AuditWriter, PendingRecord

NOON = 1_764_000_000.25


def log(directory: Path, *fields: dict[str, Any]) -> AuditRequests:
    """A log with one record for each of these fields."""
    writer = AuditWriter(directory, 2**30, 1e9, lambda: NOON)
    writer.work([PendingRecord(NOON, "device/paired", each) for each in fields])
    return AuditRequests(directory)


async def ask(requests: AuditRequests, **params: Any) -> AuditPage:
    return await requests.list(json.dumps(params).encode())


async def test_a_record_is_shown_with_its_time_its_actor_and_its_own_fields(tmp_path: Path) -> None:
    by = {"client": 7, "name": "tui", "principal": "ada", "kind": "device", "from": "10.0.0.7"}
    requests = log(tmp_path, {"by": by, "device": "phone", "scopes": ["observe"]})
    assert await ask(requests) == AuditPage(
        [
            AuditRecord(
                1, NOON, "device/paired", Actor("ada", 7, "tui", "10.0.0.7"),
                {"device": "phone", "scopes": ["observe"]},
            )
        ],
        None,
        0,
    )  # fmt: skip


async def test_who_acted_may_be_named_by_the_principal_alone_or_not_at_all(tmp_path: Path) -> None:
    odd: dict[str, object] = {"by": {"principal": "ada", "client": "7", "name": 1, "identity": "x"}}
    page = await ask(log(tmp_path, {"by": "ada"}, {"by": None}, {}, odd))
    assert [each.by for each in page.records] == [Actor("ada"), None, None, Actor("ada")]


async def test_a_time_that_somebody_changed_hides_no_record(tmp_path: Path) -> None:
    requests = log(tmp_path, {"device": "phone"})
    (path,) = audit_chain.files(tmp_path)
    path.write_text(path.read_text().replace("2025-", "yesterday-"))
    (record,) = (await ask(requests)).records
    assert (record.at, record.fields) == (0.0, {"device": "phone"})


async def test_pages_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    requests = log(tmp_path, *({"device": f"phone {n}"} for n in range(5)))
    first = await ask(requests, limit=3)
    second = await ask(requests, limit=3, cursor=first.nextCursor)
    assert [each.n for each in [*first.records, *second.records]] == [5, 4, 3, 2, 1]
    assert second.nextCursor is None
    assert (await ask(requests, kinds=["turn"])).records == []


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"cursor": "nowhere"}, {"kinds": [1]}]
)
async def test_params_that_mean_nothing_are_refused(tmp_path: Path, params: Any) -> None:
    with pytest.raises(AppmuxError, match=r"limit|cursor|kinds"):
        await ask(log(tmp_path, {}), **params)
