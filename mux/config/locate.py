"""Where a broker's unix socket is, and its codex, found without loading what reads the settings.

The stdio door has 150 ms to be attached, and settings, attrs and the logger alone would take them.
So this looks at single settings (``state_dir``, ``codex_bin``) in the places where ``load``
looks.

Hands to: ``stdio``, paths to try in order; ``codex_wrapper``, the codex that is configured; and for
``state_dir`` what a broker has announced.
Hears from: the environment, the config file, a state directory's ``broker.json``.
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
"""In the state directory: where its broker listens."""

SOCKET_VARIABLE: Final = "APPMUX_SOCKET"
CONTROL_SOCKET: Final = Path("app-server-control", "app-server-control.sock")
"""Below CODEX_HOME: where plain ``codex`` looks for a running app-server."""

UNIX: Final = "unix://"

LONGEST_ADDRESS: Final = 107 if sys.platform == "linux" else 103
"""Bytes: what fits into a ``sockaddr_un`` before its closing zero."""

_APP_NAME: Final = "appmux"  # as in config, which costs 60 ms to import


def sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """The unix sockets at which a broker may listen, the likelier first.

    ``APPMUX_SOCKET`` if it is set, and no other; else those that the running broker of the state
    directory has announced, then Codex's control socket.
    """
    named = environ.get(SOCKET_VARIABLE)
    if named:
        yield socket_path(named)
        return
    found = []
    for url in announced(state_dir(environ)) or ():
        if url.startswith(UNIX):
            found.append(Path(url.removeprefix(UNIX)))
            yield found[-1]
    control = codex_home(environ) / CONTROL_SOCKET
    if control not in found:
        yield control


def socket_path(named: str) -> Path:
    """A path as a person names it: with or without ``unix://``, with ``~``."""
    return Path(named.removeprefix(UNIX)).expanduser().absolute()


def address(path: Path) -> str:
    """A socket's path as an address. One that is too long is the link to a shorter one."""
    long = len(os.fsencode(path)) > LONGEST_ADDRESS
    return os.path.realpath(path) if long else str(path)


def announced(state_dir: Path) -> list[str] | None:
    """Where the broker of this state directory listens, as URLs; None if none has said so."""
    try:
        said = json.loads(private_file.read(state_dir / ADDRESS, foreign=True))
        return [str(url) for url in said["listeners"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def state_dir(environ: Mapping[str, str]) -> Path:
    """The state directory by environment, file and default; the flags of ``serve`` don't count."""
    named = setting(environ, "state_dir")
    return _placed(*named) if named else platformdirs.user_state_path(_APP_NAME)


def codex_bin(environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """The ``codex_bin`` of the settings, and for an error who set it."""
    named = setting(environ, "codex_bin")
    if named is None:
        return None, "default"
    text, base, origin = named
    # A bare name is a command, looked for on PATH.
    return (_placed(text, base, origin) if os.sep in text else Path(text)), origin


def setting(environ: Mapping[str, str], key: str) -> tuple[str, Path, str] | None:
    """A setting's text, the directory it is relative to, and where it comes from.

    What can't be read is passed over: ``appmux config`` says what is wrong with it.
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
