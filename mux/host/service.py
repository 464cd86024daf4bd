"""appmux as a service: the changes of `appmux service` and `appmux setup` to the machine, as steps.

A file of ours contains ``unit_files.MARKER``. A file without that belongs to somebody else and is
left alone. Used by ``cli`` and ``setup``; ``systemd`` or ``launchd`` makes the steps.
"""

from __future__ import annotations

import difflib
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs
import platformdirs

from mux.config.addresses import TcpAddress, UnixAddress, parse_listen_url
from mux.config.codex_binary import (
    CodexError,
    codex_home,
    find_codex,
    of_one_version,
    usual_places,
)
from mux.config.load import Settled, default_file
from mux.config.model import APP_NAME, Config, leaves
from mux.errors import AppmuxError
from mux.host import processes
from mux.host.launchd import LOG, Launchd
from mux.host.socket_owner import socket_owner
from mux.host.steps import Remove, Runner, Step, Write, run
from mux.host.systemd import Systemd
from mux.host.unit_files import MARKER, ServiceSpec

Supervisor: TypeAlias = Systemd | Launchd

CARRIED: Final = ("CODEX_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "LANG")
"""Variables that decide where things are; a service gets their values at its install."""

LAST_WORDS: Final = 12
"""Lines of the service's log that are shown where it doesn't start."""

OF_ONE_SHELL: Final = "fnm_multishells"
"""The directory in which fnm makes one for each shell, wherever it is."""

AFTER_DRAIN: Final = 20
"""Seconds from the drain's end to SIGKILL: flushing the journal, and ending the app-server."""


class ServiceError(AppmuxError):
    """The service can't be installed, or isn't ours to remove."""


def supervisor(
    environ: Mapping[str, str], runner: Runner = run, platform: str = sys.platform
) -> Supervisor:
    """Return the service manager of this machine. Raises ``ServiceError`` if we know none here."""
    if platform == "darwin":
        return Launchd(environ, runner)
    if platform.startswith("linux") and shutil.which("systemctl", path=environ.get("PATH")):
        return Systemd(environ, runner)
    raise ServiceError(
        "no service manager that appmux knows (systemd on Linux, launchd on macOS): have your own"
        " run `appmux serve`; it stops on SIGTERM and says READY=1 to a NOTIFY_SOCKET"
    )


# -- the service's specification -------------------------------------------------------------------


def service_spec(
    settled: Settled, environ: Mapping[str, str], *, allow_sudo: bool = False
) -> ServiceSpec:
    """Return the service that runs with these settings."""
    home = Path(environ["HOME"])
    command = [*appmux_command(), "serve"]
    if settled.file is not None and settled.file != default_file():
        command += ["--config", str(settled.file.absolute())]
    return ServiceSpec(
        command=tuple(command),
        environ=_environ(settled, environ, home),
        environment_file=environment_file(),
        sockets=_sockets(settled.config, codex_home(environ)),
        stop_seconds=math.ceil(settled.config.limits.drain) + AFTER_DRAIN,
        hardened=not allow_sudo and not _setuid("bwrap", environ),
        log=home / LOG,
    )


def codex_of_service(settled: Settled, environ: Mapping[str, str]) -> Path:
    """Return the codex that the service will find, with the environment that it will have.

    Raises ``AppmuxError``: ``ServiceError`` if this shell finds one and the service won't.
    """
    named, origin = settled.config.codex_bin, settled.origins["codex_bin"]
    home = Path(environ["HOME"])
    try:
        return find_codex(named, _environ(settled, environ, home) | {"HOME": str(home)}, origin)
    except CodexError:
        here = find_codex(named, environ, origin)  # says it, if there is none at all
        raise ServiceError(
            f"this shell finds {here}, but a service doesn't, as that place is this shell's alone:"
            f" write `codex_bin = {str(here.resolve())!r}` into {default_file()}, or install codex"
            " for all shells, for example with `npm install -g --prefix ~/.local @openai/codex`"
        ) from None


def last_words(where: Supervisor) -> str:
    """Return the end of the service's log, as lines to print; empty if there is none."""
    log = where.runner(where.logs(LAST_WORDS, False)).stdout.strip()
    lines = [line for line in log.splitlines() if not line.startswith("-- ")][-LAST_WORDS:]
    return "".join(f"\n  {line}" for line in lines)


def environment_file() -> Path:
    """Return the file with the variables that a model provider needs.

    systemd reads it; it may be missing.
    """
    return platformdirs.user_config_path(APP_NAME) / "environment"


def appmux_command() -> list[str]:
    """Return the command that runs this very appmux, by a path that outlives an upgrade."""
    called = Path(sys.argv[0])
    for script in (called, Path(sys.executable).with_name(APP_NAME)):
        if script.name == APP_NAME and script.is_file() and os.access(script, os.X_OK):
            return [str(script.absolute())]
    # -P: a directory `mux` in the service's working directory isn't this program.
    return [sys.executable, "-P", "-m", "mux"]


def _environ(settled: Settled, environ: Mapping[str, str], home: Path) -> dict[str, str]:
    variables = {"PATH": baked_path(environ, home)}
    variables |= {name: environ[name] for name in CARRIED if environ.get(name)}
    for leaf in leaves().values():
        # A setting from the shell's environment would be lost otherwise: a service has no shell.
        if settled.origins[leaf.key] == f"environment {leaf.variable}":
            variables[leaf.variable] = environ[leaf.variable]
    return variables


def baked_path(environ: Mapping[str, str], home: Path) -> str:
    """Return a service's PATH: this shell's, without fleeting directories, then the usual places.

    A directory of one version (of node, in nvm's tree) is left out: ``codex_binary.search_path``
    searches those at each start. So is what vanishes with the shell or at the logout.
    """
    versions = of_one_version(home)
    fleeting = [*versions, Path(tempfile.gettempdir())]
    if runtime := environ.get("XDG_RUNTIME_DIR"):  # goes with the last logout
        fleeting.append(Path(runtime))
    directories: dict[str, None] = {}
    for name in environ.get("PATH", os.defpath).split(os.pathsep):
        place = Path(name)
        lasting = not any(place.is_relative_to(each) for each in fleeting)
        lasting = lasting and OF_ONE_SHELL not in place.parts
        if lasting and place.is_absolute() and place.is_dir():
            directories[str(place)] = None
    for place in usual_places(home):
        if not any(place.is_relative_to(each) for each in versions):
            directories[str(place)] = None
    return os.pathsep.join(directories)


def _sockets(config: Config, home: Path) -> tuple[str, ...]:
    """Return the addresses that systemd opens. The broker opens a port that the kernel chooses."""
    addresses = [parse_listen_url(url, home) for url in config.listen]
    return tuple(str(each) for each in addresses if isinstance(each, UnixAddress) or each.port != 0)


def _setuid(program: str, environ: Mapping[str, str]) -> bool:
    path = shutil.which(program, path=environ.get("PATH"))
    return path is not None and bool(Path(path).stat().st_mode & stat.S_ISUID)


# -- what is there ---------------------------------------------------------------------------------


@attrs.frozen
class UnitFile:
    """A file that is to be written or removed."""

    path: Path
    new: str | None
    """The text to write; None to have no file."""
    old: str | None
    """The text now; None if there is no file."""

    @property
    def state(self) -> Literal["absent", "same", "ours", "foreign"]:
        """The file's state: absent, as it is to be, ours in another form, or somebody else's."""
        if self.old is None:
            return "absent"
        if MARKER not in self.old:
            return "foreign"
        return "same" if self.old == self.new else "ours"

    def difference(self) -> str:
        """Return the change as a diff."""
        old, new = (self.old or "").splitlines(True), (self.new or "").splitlines(True)
        return "".join(difflib.unified_diff(old, new, f"{self.path} (now)", f"{self.path} (new)"))


def read_files(files: Mapping[Path, str | None]) -> list[UnitFile]:
    """Read the file at each path. Raises ``ServiceError`` if one is somebody else's."""
    places = [UnitFile(path, new, _read(path)) for path, new in files.items()]
    for place in places:
        if place.state == "foreign":
            raise ServiceError(
                f"{place.path} isn't appmux's (it lacks the words {MARKER!r}), so it is left alone:"
                " move it away first, if you don't need it"
            )
    return places


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        # A dangling symlink counts as a file.
        return "" if path.is_symlink() else None
    except OSError as failure:
        raise ServiceError(f"can't read {path}: {failure.strerror}") from failure


def refuse_occupied(
    config: Config, environ: Mapping[str, str], *, taking_over: bool = False
) -> None:
    """Raise ``ServiceError`` if another program listens at one of the service's addresses.

    systemd would not notice: it replaces a socket's file, whoever listens behind it.
    With ``taking_over``, Codex's own app-server on the control socket is no hindrance.
    """
    for url in config.listen:
        address = parse_listen_url(url, codex_home(environ))
        if isinstance(address, TcpAddress):
            holders = processes.of_port(address.ip, address.port) if address.port else []
        else:
            owner = socket_owner(address.path)
            makes_way = taking_over and address.control and owner is not None and owner.codex
            holders = [owner.holder] if owner is not None and not makes_way else []
        if holders:
            raise ServiceError(
                f"{url} is in use: {holders[0]} listens there; stop it first (Codex's own daemon is"
                " asked to with --take-over, once nothing runs in it), or take the address out of"
                " `listen`"
            )


def control_socket(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Return Codex's control socket, if the service shall listen there."""
    addresses = [parse_listen_url(url, codex_home(environ)) for url in config.listen]
    paths = (each.path for each in addresses if isinstance(each, UnixAddress) and each.control)
    return next(paths, None)


# -- what to do ------------------------------------------------------------------------------------


def installing(where: Supervisor, places: list[UnitFile], *, start: bool) -> list[Step]:
    """Return steps from the files there are to an installed service, which runs if ``start``."""
    steps: list[Step] = [
        Write(place.path, place.new)
        for place in places
        if place.new is not None and place.state != "same"
    ]
    return [*steps, *(where.start() if start else where.register())]


def waking(where: Supervisor) -> list[Step]:
    """Return steps from an installed service to a running one.

    Raises ``ServiceError`` if the service isn't installed.
    """
    require_installed(where)
    return where.wake()


def require_installed(where: Supervisor) -> None:
    """Raise ``ServiceError`` unless the service is installed, by us."""
    places = read_files(dict.fromkeys(where.paths))
    if any(place.state == "absent" for place in places):
        raise ServiceError("appmux isn't installed as a service: `appmux service install` does it")


def left_behind(config: Config) -> list[Path]:
    """Return what an uninstalled service leaves on the disk, whether or not it is there."""
    return list(dict.fromkeys((default_file().parent, config.state_dir)))


def uninstalling(where: Supervisor) -> list[Step]:
    """Return steps that remove the service; none if there is no service."""
    places = read_files(dict.fromkeys(where.paths))
    if all(place.state == "absent" for place in places):
        return []
    absent = {place.path for place in places if place.state == "absent"}
    return [
        step for step in where.remove() if not (isinstance(step, Remove) and step.path in absent)
    ]
