"""`/metrics`: who may read it; what it counts without processes; the dashboard that shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mux.access.authentication import Authenticator, open_auth
from mux.config.model import Auth
from mux.downstream.http.request import Exposition
from mux.downstream.http.routes import admit
from mux.storage.timings import BOUNDS, Histogram
from tests import jwts, knocks

CONTRIB = Path(__file__).parents[3] / "contrib"
DASHBOARD = CONTRIB / "grafana" / "appmux.json"
ALERTS = CONTRIB / "prometheus" / "alerts.yml"
ELSEWHERE = "192.0.2.7:5123"


# --- Who may read it ------------------------------------------------------------------------------


def _authenticator(where: Path) -> Authenticator:
    secret = where / "secret"
    secret.write_bytes(jwts.SECRET)
    return open_auth(Auth(mode="signed-bearer-token", shared_secret_file=secret))


def _bearer(**claims: Any) -> str:
    """Made when it is used: it is good for ten minutes, and the tests may take longer."""
    token = jwts.signed(jwts.good(int(time.time()), **claims))
    return f"authorization: Bearer {token}"


async def _ask(
    where: Path, sent: bytes, kind: Literal["ws", "unix"] = "ws", address: str = ELSEWHERE
) -> knocks.Reply:
    near, far = trio.testing.memory_stream_pair()
    expose = lambda accept: Exposition(f"accept {accept}", "text/x")  # noqa: E731
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            who = _authenticator(where)
            await admit(near, knocks.peer(kind, who, address, metrics=expose))

        nursery.start_soon(answer)
        reply = await knocks.ask(far, sent)
        await far.aclose()  # or the other end lingers
    return reply


@pytest.mark.parametrize(
    ("claims", "headers", "status", "body"),
    [
        (None, [], 401, "missing websocket bearer token"),
        (None, ["authorization: Bearer x"], 401, "invalid websocket jwt"),
        ({"scope": "observe approve drive"}, [], 403, "`/metrics` needs the scope `admin`"),
        ({"scope": "admin"}, [], 200, "accept "),
        ({}, ["accept: a", "accept: b"], 200, "accept a,b"),
        ({}, ["origin: http://x"], 403, ""),
    ],
)
async def test_from_elsewhere_it_needs_admin(
    claims: dict[str, str] | None, headers: list[str], status: int, body: str, tmp_path: Path
) -> None:
    bearer = [] if claims is None else [_bearer(**claims)]
    reply = await _ask(tmp_path, knocks.request("GET /metrics", *bearer, *headers))
    assert (reply.status, reply.body) == (status, body)
    if status == 401:
        assert reply.headers["www-authenticate"] == "Bearer"
    if status == 200:
        assert reply.headers["content-type"] == "text/x"


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("unix", "unix"),
        ("ws", "127.0.0.1:5123"),
        ("ws", "127.8.9.1:5123"),
        ("ws", "[::1]:5123"),
        ("ws", "[::ffff:127.0.0.1]:5123"),
    ],
)
async def test_on_this_machine_it_needs_nothing(
    kind: Literal["ws", "unix"], address: str, tmp_path: Path
) -> None:
    for line in ("GET /metrics", "HEAD /metrics", "GET http://x/metrics?y"):
        reply = await _ask(tmp_path, knocks.at_address(knocks.request(line)), kind, address)
        assert reply.status == 200
    reply = await _ask(tmp_path, knocks.request("POST /metrics"), kind, address)
    assert (reply.status, reply.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize("address", ["[fe80::1%eth0]:5123", "[::ffff:10.0.0.1]:1", "nonsense", ""])
async def test_what_is_not_this_machine(address: str, tmp_path: Path) -> None:
    reply = await _ask(tmp_path, knocks.request("GET /metrics"), "ws", address)
    assert reply.status == 401


# --- Times ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS)))
def test_buckets_count_what_took_that_long_or_less(seconds: list[float]) -> None:
    times = Histogram()
    for each in seconds:
        times.observe(each)
    assert times.total == pytest.approx(sum(seconds))
    *bounded, last = times.buckets()
    assert last == ("+Inf", len(seconds))
    for bound, count in bounded:
        assert count == sum(each <= float(bound) for each in seconds)


# --- The dashboard --------------------------------------------------------------------------------


@attrs.frozen
class Query:
    """One query of a panel, or of an alert."""

    panel: str
    text: str

    def names(self) -> set[str]:
        """The metrics in it."""
        return set(re.findall(r"\b(?:appmux|process)_\w+", self.text))


def queries() -> Iterator[Query]:
    """All of the dashboard and of the alerts, but for Prometheus' own metric `up`."""
    for text in re.findall(r"^ +expr: (.+)$", ALERTS.read_text(), re.MULTILINE):
        if not text.startswith("up{"):
            yield Query("alerts", text)
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield Query(panel["title"], target["expr"])


def samples(text: str) -> Mapping[str, float]:
    """Every sample of an exposition, by its name and labels as they stand there."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


def test_the_dashboard_holds_nothing_of_one_installation() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None
    assert dashboard["uid"] == "appmux"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    (source,) = dashboard["templating"]["list"]
    assert source["type"] == "datasource"
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["description"]
            assert panel["targets"]


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (prometheus) isn't installed"
)
def test_prometheus_takes_the_alerts() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
