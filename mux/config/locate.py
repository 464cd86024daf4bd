"""Find a broker's unix socket and its codex without loading the settings.

The stdio bridge must be attached within 150 ms, which settings, attrs and the logger alone would
use up. So this module reads single settings (``state_dir``, ``codex_bin``) from the environment and
the config file, where ``load`` reads them too, and a state directory's ``broker.json``.

Used by ``stdio`` (paths to try in order, the configured codex), and by the commands that need the
addresses a broker has announced.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import platformdirs

from mux.config.codex_binary import codex_home
from mux.posix import private_file

ADDRESS: Final = "broker.json"
"""File in the state directory that says where its broker listens."""

SOCKET_VARIABLE: Final = "APPMUX_SOCKET"
CONTROL_SOCKET: Final = Path("app-server-control", "app-server-control.sock")
"""Path below CODEX_HOME where plain ``codex`` looks for a running app-server."""

UNIX: Final = "unix://"

LONGEST_ADDRESS: Final = 107 if sys.platform == "linux" else 103
"""Bytes that fit into a ``sockaddr_un`` before its closing zero."""

_APP_NAME: Final = "appmux"  # as in ``model``, which costs 60 ms to import


def sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the unix sockets at which a broker may listen, the likelier first.

    If ``APPMUX_SOCKET`` is set, only that one; else those that the running broker of the state
    directory has announced, then Codex's control socket.
    """
    named = environ.get(SOCKET_VARIABLE)
    if named:
        yield socket_path(named)
        return
    paths = []
    for url in announced(state_dir(environ)) or ():
        if url.startswith(UNIX):
            paths.append(Path(url.removeprefix(UNIX)))
            yield paths[-1]
    control = codex_home(environ) / CONTROL_SOCKET
    if control not in paths:
        yield control


def socket_path(named: str) -> Path:
    """Return the path that a person named: with or without ``unix://``, with ``~``."""
    return Path(named.removeprefix(UNIX)).expanduser().absolute()


def address(path: Path) -> str:
    """Return a socket's path as an address. A path that is too long is a link to a shorter one."""
    long = len(os.fsencode(path)) > LONGEST_ADDRESS
    return os.path.realpath(path) if long else str(path)


def announced(state_dir: Path) -> list[str] | None:
    """Return the URLs at which this state directory's broker listens; None if unannounced."""
    listeners = _announcement(state_dir).get("listeners")
    return [str(url) for url in listeners] if isinstance(listeners, list) else None


def announced_settings(state_dir: Path) -> object:
    """Return the settings that this state directory's broker runs with; None if unannounced.

    ``load.recall`` reads them.
    """
    return _announcement(state_dir).get("settings")


def _announcement(state_dir: Path) -> dict[str, object]:
    try:
        document = json.loads(private_file.read(state_dir / ADDRESS, foreign=True))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the state directory by environment, file and default.

    Flags of ``serve`` don't count.
    """
    named = setting(environ, "state_dir")
    return _placed(*named) if named else platformdirs.user_state_path(_APP_NAME)


def codex_bin(environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """Return the ``codex_bin`` setting, and for an error who set it."""
    named = setting(environ, "codex_bin")
    if named is None:
        return None, "default"
    text, base, origin = named
    # A bare name is a command, looked for on PATH.
    return (_placed(text, base, origin) if os.sep in text else Path(text)), origin


def setting(environ: Mapping[str, str], key: str) -> tuple[str, Path, str] | None:
    """Return a setting's text, the directory it is relative to, and where it comes from.

    A file that can't be read is passed over: ``appmux config`` says what is wrong with it.
    """
    variable = f"APPMUX_{key.upper()}"
    named = environ.get(variable)
    if named:
        return named, Path.cwd(), f"environment {variable}"
    file = environ.get("APPMUX_CONFIG")
    usual = platformdirs.user_config_path(_APP_NAME) / "config.toml"
    path = Path(file).expanduser() if file else usual
    try:
        in_file = tomllib.loads(path.read_bytes().decode()).get(key)
    except (OSError, ValueError):
        return None
    if not isinstance(in_file, str) or not in_file:
        return None
    return in_file, path.absolute().parent, f"file {path}"


def _placed(named: str, base: Path, _origin: str) -> Path:
    return base / os.path.expanduser(named)  # noqa: PTH111 (of an unknown ~name it makes a plain one)
