"""`appmux setup`: from a host with codex to a service that phones can reach, in one go.

First everything is examined and decided (`plan`), then shown, and then done; `--dry-run` ends
before that. No existing file is overwritten: for a config file of the user's, setup only shows the
lines that it lacks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from mux.config.addresses import ListenUrlError, parse_listen_url
from mux.config.codex_binary import find_codex
from mux.config.load import Settled, default_file, load
from mux.config.model import Config
from mux.config.values import toml_value
from mux.errors import AppmuxError
from mux.host import novascale, readiness, service, steps
from mux.host.novascale import Vanilla
from mux.host.service import Supervisor, UnitFile
from mux.host.steps import PRIVATE, Step, Write

PORT: Final = 14500
"""NovaScale's default: an app that knows only a host finds the broker."""

CRASH_LOOP: Final = 2
"""Ends of the service while it is waited for, after which it won't get ready by itself."""

TOKEN_BYTES: Final = 32


class SetupError(AppmuxError):
    """A setup can't begin, or wasn't finished; the text says what is left to do."""


@attrs.frozen
class Plan:
    """Everything that is decided: the codex, where to listen, the files, the steps."""

    codex: Path
    """The binary's path."""
    where: Supervisor | None
    """The service manager; None where there is to be no service."""
    config: Config
    url: str
    """The address to which phones connect."""
    steps: tuple[Step, ...]
    places: tuple[UnitFile, ...] = ()
    missing: tuple[str, ...] = ()
    """Lines that an existing config file lacks."""
    vanilla: Vanilla | None = None
    """NovaScale's service, if its place is to be taken."""


def host_to_use(named: str | None, vanilla: Vanilla | None, own: list[str]) -> str | None:
    """Return where to listen: as named, as NovaScale, at the only Tailnet address; else None."""
    if named is not None:
        return named
    if vanilla is not None:
        return vanilla.host
    return own[0] if len(own) == 1 else None


def plan(
    environ: Mapping[str, str],
    where: Supervisor | None,
    *,
    host: str,
    vanilla: Vanilla | None,
    start: bool,
    linger: bool,
    allow_sudo: bool = False,
    taking_over: bool = False,
) -> Plan:
    """Decide everything and change nothing. Raises ``AppmuxError`` for whatever is in the way.

    Without a service manager there are only the settings and the token.
    """
    url = vanilla.url if vanilla is not None else _url(host)
    settled, files, missing = _settings(load({}, environ), environ, url, vanilla)
    if where is None:
        codex = find_codex(settled.config.codex_bin, environ, settled.origins["codex_bin"])
        return Plan(codex, None, settled.config, url, tuple(files), missing=missing)
    codex = service.codex_of_service(settled, environ)
    spec = service.service_spec(settled, environ, allow_sudo=allow_sudo)
    places = service.read_files(where.files(spec))
    taking = [] if vanilla is None else novascale.taking(where, vanilla, settled.config.state_dir)
    if not where.occupies() and vanilla is None:
        service.refuse_occupied(settled.config, environ, taking_over=taking_over)
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
    """Return the service's settings, steps for their files, and the lines the user's file lacks."""
    if before.file is not None:
        lacks = _lacks(before, url)
        if lacks and vanilla is not None:
            raise SetupError(
                f"{before.file} is yours, so it isn't changed; to take the place of NovaScale's"
                " service it needs these lines, then run this again:\n"
                + "\n".join(f"  {line}" for line in lacks)
            )
        token = before.config.auth.token_file
        return before, _token(token) if token is not None else [], lacks
    file = default_file()
    token_file = file.with_name("token")
    values: dict[str, object] = {
        "listen": ("unix://", url),
        "auth.mode": "capability-token",
        "auth.token_file": token_file,
    }
    for key in values:
        if before.origins[key] != "default":
            raise SetupError(
                f"{key} is set by the {before.origins[key]}, which goes over the config file that"
                " setup writes: unset it, or write the file yourself"
            )
    files = [*_token(token_file), Write(file, _config_text(url, token_file))]
    return load(values, environ), files, ()


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
    """Return the step that writes a new token, if there is no token."""
    if path.exists():
        return []
    return [Write(path, secrets.token_urlsafe(TOKEN_BYTES) + "\n", PRIVATE, secret=True)]


def _lacks(settled: Settled, url: str) -> tuple[str, ...]:
    """Return the lines that the user's own file needs for phones to reach the broker there."""
    config = settled.config
    listens = [parse_listen_url(each, Path()) for each in config.listen]
    lines = []
    if parse_listen_url(url, Path()) not in listens:
        lines.append(f"listen = {toml_value((*config.listen, url))}")
    if config.auth.mode is None:
        token = (settled.file or default_file()).with_name("token")
        lines += ["[auth]", 'mode = "capability-token"', f"token_file = {toml_value(str(token))}"]
    return tuple(lines)


# -- doing it --------------------------------------------------------------------------------------


def perform(
    plan: Plan, environ: Mapping[str, str], say: Callable[[str], None], *, start: bool
) -> None:
    """Perform the steps, and wait until the broker is ready.

    If that fails after NovaScale's service was stopped, NovaScale's service is started again. In
    any case ``AppmuxError`` is raised with the reason.
    """
    where = plan.where
    if where is None:
        steps.perform(plan.steps, say)
        return
    try:
        _perform(plan.steps, say, where)
        if start:
            say("wait until /readyz answers 200")
            _wait(plan.config, environ, where)
    except AppmuxError as failure:
        if plan.vanilla is None or not novascale.taken(plan.config.state_dir):
            raise
        say("that failed: NovaScale's service gets its place back")
        back = novascale.giving_back(where, plan.config.state_dir)
        steps.perform([*service.uninstalling(where), *back], say, where.runner)
        raise SetupError(f"{failure}; NovaScale's service is as it was") from failure


def _perform(doing: tuple[Step, ...], say: Callable[[str], None], where: Supervisor) -> None:
    """Perform the steps. Where the service doesn't start, its own last words say why."""
    try:
        steps.perform(doing, say, where.runner)
    except steps.StepError as failure:
        words = service.last_words(where)
        if not words:
            raise
        raise SetupError(f"{failure}\nThe service's own last words:{words}") from failure


def _wait(config: Config, environ: Mapping[str, str], where: Supervisor) -> None:
    """Wait until the broker is ready. Raises ``SetupError`` if it won't be."""
    before = where.crashes()
    answer = readiness.wait(config, environ, lambda: where.crashes() - before >= CRASH_LOOP)
    if answer == readiness.OK:
        return
    crashes = where.crashes() - before
    state = f"it ended {crashes} times, and is started again and again" if crashes else answer
    words = service.last_words(where)
    raise SetupError(
        f"the service is installed, but it isn't ready: {state}; `appmux doctor` looks for the"
        " cause" + (f". The service's own last words:{words}" if words else "")
    )
