"""`appmux setup` on a host of a Tailnet: what it asks, and what it says where https is in vain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mux.cli import main
from mux.cli.terminal import confirmation
from tests.host.machine import Host, host
from tests.host.test_setup import port, snapshot
from tests.tailnet.stand_in import DENIED, NAME, Tailscaled, tailscaled

__all__ = ["host", "port"]

PAGE = f"https://{NAME}:14543/"
STEP = f"- get a certificate for {NAME}, and serve {PAGE}"


@pytest.fixture
def daemon(host: Host, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tailscaled]:
    with tailscaled(host.root / "ts") as made:
        monkeypatch.setenv("APPMUX_TAILNET_SOCKET", str(made.socket))
        yield made


def run(*args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main.appmux, ["setup", "--no-start", *args], input=answer)


def chosen(host: Host) -> str | None:
    path = host.state / "tailnet.json"
    return str(json.loads(path.read_text())["name"]) if path.exists() else None


def test_yes_alone_publishes_nothing(host: Host, daemon: Tailscaled) -> None:
    done = run("--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "The name becomes public" in " ".join(done.output.split())
    assert "`--https` says yes" in done.output
    assert STEP not in done.output
    assert chosen(host) is None
    assert daemon.orders() == 0
    again = run("--yes", "--no-https")
    assert "becomes public" not in again.output
    assert chosen(host) is None


def test_https_is_the_yes(host: Host, daemon: Tailscaled) -> None:
    done = run("--yes", "--https")
    assert done.exit_code == 0, (done.output, done.exception)
    assert STEP in done.output
    assert chosen(host) == NAME
    assert daemon.orders() == 0  # the broker asks, once it runs
    before = snapshot(host.home)
    again = run("--yes")  # what was said stays said
    assert STEP in again.output
    assert "becomes public" not in again.output
    assert {path: each[2] for path, each in snapshot(host.home).items()} == {
        path: each[2] for path, each in before.items()
    }


@pytest.mark.parametrize(("word", "name"), [("y", NAME), ("n", None)])
def test_a_person_is_asked(
    host: Host, daemon: Tailscaled, monkeypatch: pytest.MonkeyPatch, word: str, name: str | None
) -> None:
    monkeypatch.setattr(confirmation, "is_terminal", lambda: True)
    done = run(answer=f"{word}\ny\n")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "Have the name made public, for https? [y/N]" in done.output
    assert (STEP in done.output) == (name is not None)
    assert chosen(host) == name


def test_a_dry_run_says_it_and_publishes_nothing(host: Host, daemon: Tailscaled) -> None:
    before = snapshot(host.root)
    for flags in ((), ("--https",), ("--yes", "--https")):
        done = run("--dry-run", *flags)
        assert done.exit_code == 0
        assert (STEP in done.output) == ("--https" in flags)
        assert "Nothing was changed" in done.output
    assert snapshot(host.root) == before
    assert daemon.orders() == 0
    assert json.loads(run("--dry-run", "--https", "--json").stdout)["https"]["name"] == NAME


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"https": False}, "HTTPS is off in this tailnet\n  → open https://login.tailscale.com"),
        ({"state": "NeedsLogin"}, "isn't logged in here\n  → run `sudo tailscale up`"),
    ],
)
def test_what_is_in_the_way_is_said_and_the_rest_is_done(
    host: Host, daemon: Tailscaled, fields: dict[str, object], says: str
) -> None:
    for name, value in fields.items():
        setattr(daemon, name, value)
    done = run("--yes", "--https")
    assert done.exit_code == 0, (done.output, done.exception)
    assert says in done.output
    assert host.settings.exists()
    assert chosen(host) is None


def test_without_tailscale_nothing_is_said_of_it(
    host: Host, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mux.tailnet.tailscaled.SOCKET", Path("/nowhere"))
    monkeypatch.setenv("PATH", str(host.root / "bin"))
    assert "https" not in run("--dry-run").output
    asked = run("--dry-run", "--https")
    assert "Tailscale isn't installed here" in asked.output


# -- the command -----------------------------------------------------------------------------------


def tailnet(*args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main.appmux, ["tailnet", *args], input=answer)


def test_the_command_without_a_broker(host: Host, daemon: Tailscaled) -> None:
    off = tailnet("status")
    assert off.output == f"off; this machine is {NAME}: `appmux tailnet enable`\n"
    unasked = tailnet("enable")
    assert "say it with --yes" in str(unasked.exception)
    assert chosen(host) is None
    done = tailnet("enable", "--yes")
    assert "on: the broker gets the certificate when it starts" in done.output
    assert chosen(host) == NAME
    on = json.loads(tailnet("status", "--json").stdout)
    assert (on["enabled"], on["trouble"]) == (True, "no broker runs")
    key = host.state / "tailnet.pem"
    key.write_text("as a broker left it")
    assert tailnet("disable").output == "off\n"
    assert chosen(host) is None
    assert not key.exists()


def test_the_command_says_what_is_in_the_way(host: Host, daemon: Tailscaled) -> None:
    daemon.https = False
    done = tailnet("enable", "--yes")
    assert done.exit_code == 1
    assert "Enable HTTPS" in str(done.exception)
    assert "HTTPS is off" in tailnet("status").output
    daemon.https, daemon.refusal = True, DENIED  # whether we may is known once it is asked for
    assert tailnet("enable", "--yes").exit_code == 0
