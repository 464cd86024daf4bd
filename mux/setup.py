"""`appmux setup`: from a host with codex to a service that phones can reach, in one go.

First everything is looked at and decided (`plan`), then it is told, and then done; `--dry-run` ends
before that. Nothing that is there is overwritten: a config file of the user's is only shown what it
lacks.

Hands to: ``steps``. Hears from: ``cli_service``; ``tailnet``, ``login``, ``novascale``, the machine.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from mux import novascale, service, steps
from mux.codex import codex_home, find_codex
from mux.config import Config
from mux.errors import AppmuxError
from mux.listener import Address, ListenUrlError, TcpAddress, parse_listen_url
from mux.novascale import Vanilla
from mux.service import Place, Supervisor
from mux.settings import Settled, default_file, load, toml_value
from mux.steps import PRIVATE, Step, Write

PORT: Final = 14500
"""NovaScale's default: an app that is told only a host finds the broker."""

TOKEN_BYTES: Final = 32
READY_DEADLINE: Final = 90.0
"""Seconds until `/readyz` answers 200: a first start of codex on a cold disk takes some."""

LOOK_SECONDS: Final = 0.2
ANSWER_DEADLINE: Final = 2.0
HTTP_OK: Final = 200

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""A listener on all addresses, and where to reach it from its own machine."""


class SetupError(AppmuxError):
    """A setup that can't be begun, or didn't come to its end; the text says what is left to do."""


@attrs.frozen
class Plan:
    """All that is decided: the codex, where to listen, the files, the steps.

    ``missing`` is what a config file that is already there should get; ``codex`` the binary's path;
    ``url`` is where phones connect; ``vanilla`` NovaScale's service, if its place is to be taken.
    """

    codex: Path
    where: Supervisor
    config: Config
    url: str
    steps: tuple[Step, ...]
    places: tuple[Place, ...] = ()
    missing: tuple[str, ...] = ()
    vanilla: Vanilla | None = None


def host_to_use(named: str | None, vanilla: Vanilla | None, own: list[str]) -> str | None:
    """Where to listen: as named, at NovaScale's place, on the only Tailnet address; else None."""
    if named is not None:
        return named
    if vanilla is not None:
        return vanilla.host
    return own[0] if len(own) == 1 else None


def plan(
    environ: Mapping[str, str],
    where: Supervisor,
    *,
    host: str,
    vanilla: Vanilla | None,
    start: bool,
    linger: bool,
    allow_sudo: bool = False,
) -> Plan:
    """Decide everything and change nothing. Raises ``AppmuxError`` for what is in the way."""
    url = vanilla.url if vanilla is not None else _url(host)
    settled, files, missing = _settings(load({}, environ), environ, url, vanilla)
    codex = find_codex(settled.config.codex_bin, environ, settled.origins["codex_bin"])
    wanted = service.wanted(settled, environ, allow_sudo=allow_sudo)
    places = service.look(where.files(wanted))
    taking = [] if vanilla is None else novascale.taking(where, vanilla, settled.config.state_dir)
    if not where.running() and vanilla is None:
        service.refuse_occupied(settled.config, environ)
    return Plan(
        codex=codex,
        where=where,
        config=settled.config,
        url=url,
        steps=(
            *files,
            *taking,
            *service.installing(where, places, start=start),
            *(where.linger() if linger else ()),
        ),
        places=tuple(places),
        missing=missing,
        vanilla=vanilla,
    )


def _url(host: str) -> str:
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    url = f"ws://{bracketed}:{PORT}"
    try:
        parse_listen_url(url, Path())
    except ListenUrlError as failure:
        raise SetupError(
            f"{host!r} is no address of this machine's: --host takes an IP address, as 127.0.0.1 or"
            " the one that `tailscale ip -4` prints"
        ) from failure
    return url


def _settings(
    before: Settled, environ: Mapping[str, str], url: str, vanilla: Vanilla | None
) -> tuple[Settled, list[Step], tuple[str, ...]]:
    """The settings that the service gets, the files for them, and what the user's file lacks."""
    if before.file is not None:
        lacks = _lacks(before, url, vanilla)
        if lacks and vanilla is not None:
            raise SetupError(
                f"{before.file} is yours, so it isn't changed; to take the place of NovaScale's"
                " service it needs these lines, then run this again:\n"
                + "\n".join(f"  {line}" for line in lacks)
            )
        token = before.config.auth.token_file
        return before, _token(token) if token is not None else [], lacks
    file = default_file()
    token_file = vanilla.token_file if vanilla is not None else file.with_name("token")
    values: dict[str, object] = {
        "listen": ("unix://", url),
        "auth.mode": "capability-token",
        "auth.token_file": token_file,
    }
    # What the shell's variables set goes over the file, as it will in the service.
    fresh = {key: value for key, value in values.items() if before.origins[key] == "default"}
    files = [*_token(token_file), Write(file, _config_text(url, token_file))]
    return load(fresh, environ), files, ()


def _config_text(url: str, token_file: Path) -> str:
    return (
        "# Made by `appmux setup`, and yours to change: `appmux config` shows every setting.\n"
        "# After a change of `listen`, run `appmux service install` again.\n"
        "\n"
        "# Codex's own control socket, where plain `codex` attaches; and the phones' address.\n"
        f"listen = {toml_value(('unix://', url))}\n"
        "\n"
        "[auth]\n"
        'mode = "capability-token"\n'
        f"token_file = {toml_value(str(token_file))}\n"
    )


def _token(path: Path) -> list[Step]:
    """A new token, if there is none."""
    if path.exists():
        return []
    return [Write(path, secrets.token_urlsafe(TOKEN_BYTES) + "\n", PRIVATE, secret=True)]


def _lacks(settled: Settled, url: str, vanilla: Vanilla | None) -> tuple[str, ...]:
    """Lines that the user's own file should get, so that phones reach the broker there."""
    config = settled.config
    listens = [parse_listen_url(each, Path()) for each in config.listen]
    lines = []
    if parse_listen_url(url, Path()) not in listens:
        lines.append(f"listen = {toml_value((*config.listen, url))}")
    file = settled.file or default_file()
    token = file.with_name("token") if vanilla is None else vanilla.token_file
    theirs = config.auth.token_file
    if config.auth.mode is None or (vanilla is not None and not _same(theirs, token)):
        lines += ["[auth]", 'mode = "capability-token"', f"token_file = {toml_value(str(token))}"]
    return tuple(lines)


def _same(one: Path | None, other: Path) -> bool:
    """Whether both files hold the same token."""
    try:
        return one is not None and one.read_text().strip() == other.read_text().strip()
    except OSError:
        return False


# -- doing it --------------------------------------------------------------------------------------


def perform(
    plan: Plan, environ: Mapping[str, str], say: Callable[[str], None], *, start: bool
) -> None:
    """Do the steps, and wait until the broker is ready.

    Where that fails after NovaScale's service was stopped, that is started again. Raises
    ``AppmuxError`` with the reason in any case.
    """
    try:
        steps.perform(plan.steps, say, plan.where.runner)
        if start:
            say("wait until /readyz answers 200")
            wait_ready(plan.config, environ)
    except AppmuxError as failure:
        if not novascale.taken(plan.config.state_dir):
            raise
        say("that failed: NovaScale's service gets its place back")
        back = novascale.giving_back(plan.where, plan.config.state_dir)
        steps.perform([*service.uninstalling(plan.where), *back], say, plan.where.runner)
        raise SetupError(f"{failure}; NovaScale's service is as it was") from failure


def wait_ready(
    config: Config, environ: Mapping[str, str], patience: float = READY_DEADLINE
) -> None:
    """Wait until `/readyz` says 200. Raises ``SetupError`` with what it said last."""
    deadline = time.monotonic() + patience
    said = "nothing"
    while time.monotonic() < deadline:
        said = probe(config, environ, "/readyz")
        if said == str(HTTP_OK):
            return
        time.sleep(LOOK_SECONDS)
    raise SetupError(
        f"the service is installed, but /readyz said {said} for {patience:.0f} s: see"
        " `appmux service logs` and `appmux doctor`"
    )


def probe(config: Config, environ: Mapping[str, str], path: str) -> str:
    """The status that the first reachable listener gives for ``path``, or why there is none."""
    said = "nothing"
    for url in sorted(config.listen, key=lambda url: not url.startswith("unix:")):
        address = parse_listen_url(url, codex_home(environ))
        try:
            return str(_status(_connected(address), path))
        except (OSError, http.client.HTTPException) as failure:
            said = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
    return said


def _connected(address: Address) -> socket.socket:
    if isinstance(address, TcpAddress):
        ip = str(address.ip)
        return socket.create_connection(
            (EVERYWHERE.get(ip, ip), address.port), timeout=ANSWER_DEADLINE
        )
    there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        there.settimeout(ANSWER_DEADLINE)
        there.connect(str(address))
    except BaseException:
        there.close()
        raise
    return there


def _status(there: socket.socket, path: str) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_DEADLINE)
    connection.sock = there
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
