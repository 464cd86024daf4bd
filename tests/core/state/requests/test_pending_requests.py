"""The register of server requests: what is known by which id, and for how long."""

from __future__ import annotations

import pytest

from mux.core.protocol.rules import ServerRequestRule
from mux.core.state.requests import pending_requests
from mux.core.state.requests.pending_requests import PendingRequests, ServerRequest


def added(to: PendingRequests, upstream: bytes, thread: str | None = "t") -> ServerRequest:
    request = ServerRequest(
        id=to.take_id(), upstream=upstream, method="m", thread=thread,
        rule=ServerRequestRule(), offer=b"{}", since=0.0,
    )  # fmt: skip
    to.add(request)
    return request


def test_ids_go_up_from_the_first_and_never_come_again() -> None:
    known = PendingRequests(500)
    ids = [added(known, b"%d" % at).id for at in range(3)]
    assert ids == [501, 502, 503]
    known.clear()
    assert added(known, b"0").id == 504


def test_only_who_was_offered_it_may_answer_and_only_until_it_is_answered() -> None:
    known = PendingRequests(0)
    request = added(known, b"7")
    request.offered[1] = None
    own = b"%d" % request.id
    assert known.offered_to(1, own) is request
    assert known.offered_to(2, own) is None
    for strange in (b"7", b'"%d"' % request.id, b"-1", b'""', b"99999999999999999999"):
        assert known.offered_to(1, strange) is None
    request.answered = True
    assert known.offered_to(1, own) is None


def test_a_repetition_is_known_while_it_is_pending_and_after() -> None:
    known = PendingRequests(0)
    request = added(known, b"7")
    assert known.is_repetition(b"7")
    assert not known.is_repetition(b'"7"')
    assert known.resolve(b"7") is request
    assert known.is_repetition(b"7")
    assert known.resolve(b"7") is None
    known.clear()
    assert not known.is_repetition(b"7")


def test_what_is_remembered_of_resolved_ones_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_requests, "REMEMBERED_RESOLVED", 3)
    known = PendingRequests(0)
    for at in range(5):
        added(known, b"%d" % at)
        known.resolve(b"%d" % at)
    assert [known.is_repetition(b"%d" % at) for at in range(5)] == [False, False, True, True, True]


def test_pending_ones_by_thread_oldest_first() -> None:
    known = PendingRequests(0)
    first, other, second, loose = (
        added(known, b"%d" % at, thread) for at, thread in enumerate(["t", "u", "t", None])
    )
    assert list(known.pending("t")) == [first, second]
    assert list(known.pending()) == [first, other, second, loose]
    assert known.has_pending("u")
    assert not known.has_pending("v")
    assert known.clear() == [first, other, second, loose]
    assert list(known.pending()) == []


def test_the_next_moment_is_the_earliest_deadline() -> None:
    known = PendingRequests(0)
    assert known.next_moment(0.0) == float("inf")
    first, second = added(known, b"0"), added(known, b"1")
    assert known.next_moment(0.0) == float("inf")
    first.deadline, second.deadline = 9.0, 5.0
    assert known.next_moment(0.0) == 5.0
    known.resolve(b"1")
    assert known.next_moment(0.0) == 9.0
