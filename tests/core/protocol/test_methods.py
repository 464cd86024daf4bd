"""THE TABLE against itself: its rows agree with each other and with what the core can do."""

from __future__ import annotations

import pytest

from mux.core.protocol import methods
from mux.core.protocol.methods import (
    NOTIFICATIONS,
    REQUESTS,
    SERVER_REQUESTS,
    notification_rule,
    request_rule,
    server_request_rule,
)
from mux.core.protocol.rules import Audience, OfferTo, Route
from mux.core.state.clients.client import Capabilities


def test_a_method_that_the_table_does_not_name_passes_untouched() -> None:
    assert request_rule("made/up") == methods.PLAIN
    assert notification_rule("made/up").audience is Audience.NAMED
    assert server_request_rule("made/up").offer_to is OfferTo.FOLLOWERS
    assert methods.PLAIN.route is Route.PLAIN
    assert not methods.PLAIN.waits


def test_what_ends_a_thing_takes_the_same_id() -> None:
    for method, rule in REQUESTS.items():
        own = rule.own_id
        if own is not None and own.begins:
            end = request_rule(own.ended_by).own_id
            assert end is not None, method
            assert end.field == own.field, method
            assert not end.begins, method


def test_each_notification_for_an_owner_names_an_id_that_a_request_begins() -> None:
    begun = {rule.own_id.field for rule in REQUESTS.values() if rule.own_id and rule.own_id.begins}
    for method, rule in NOTIFICATIONS.items():
        assert bool(rule.own_id) == (rule.audience is Audience.OWNER), method
        assert bool(rule.names_request) == (rule.audience is Audience.NAMED), method
        assert not rule.own_id or rule.own_id in begun, method


@pytest.mark.parametrize("method", sorted(SERVER_REQUESTS))
def test_each_capability_that_is_needed_can_be_declared(method: str) -> None:
    needs = SERVER_REQUESTS[method].needs
    assert not needs or isinstance(getattr(Capabilities(), needs), bool)


def test_what_begins_work_does_not_only_read() -> None:
    for method, rule in REQUESTS.items():
        assert not (rule.reads and rule.begins), method
        assert not (rule.reads and rule.route not in (Route.PLAIN, Route.REPLAY)), method


def test_what_cancels_a_request_names_it() -> None:
    for method, rule in REQUESTS.items():
        if rule.cancelled_by:
            assert request_rule(rule.cancelled_by).names_request == "requestId", method


def test_rows_are_frozen() -> None:
    with pytest.raises(AttributeError):
        methods.PLAIN.waits = True  # type: ignore[misc]
