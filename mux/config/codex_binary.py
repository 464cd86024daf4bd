"""Find the ``codex`` binary and Codex's home directory.

Looked at are the configuration, the environment, PATH and the ``openai-codex-cli-bin`` package.
``upstream`` runs the binary.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mux.errors import AppmuxError

CODEX_BIN_VARIABLE = "APPMUX_CODEX_BIN"

_STAND_IN = re.compile(rb"\bmux\.(?:stand_in|stdio\.codex_wrapper)\b|\bappmux-codex(?![\w/.-])")
"""Matches the script ``appmux-codex``, and a script that a person wrote to start it."""

SCRIPT_BYTES = 4096
"""Bytes read of a script to see whether it is the stand-in; pip's scripts are a tenth of that."""

HOW_TO_GET_ONE = (
    "install it beside appmux with `pip install 'appserver-mux[codex]'`, or for the whole machine"
    " with `npm install -g @openai/codex`; or name yours with --codex-bin or APPMUX_CODEX_BIN"
)


class CodexError(AppmuxError):
    """Raised when there is no ``codex`` to run, or the named binary isn't usable."""


def find_codex(
    config_bin: Path | None, environ: Mapping[str, str], origin: str = "codex_bin"
) -> Path:
    """Return the absolute path of the binary to run.

    Tried in this order: ``config_bin``, ``APPMUX_CODEX_BIN``, ``codex`` on PATH and then in the
    usual places, the package. ``origin`` says in an error who set ``config_bin``.

    If a binary is named but can't be run, that is an error and the search ends: a person who names
    a binary doesn't want another one. appmux's own stand-in for codex, which may well be called
    ``codex`` on PATH, is never returned.

    Raises ``CodexError``.
    """
    search = search_path(environ)
    if config_bin is not None:
        return _named(str(config_bin), origin, search)
    named = environ.get(CODEX_BIN_VARIABLE)
    if named:
        return _named(named, f"environment {CODEX_BIN_VARIABLE}", search)
    skipped = ""
    for place in (search or os.defpath).split(os.pathsep):
        on_path = shutil.which("codex", path=place or os.curdir)
        if on_path is not None and is_stand_in(Path(on_path)):
            skipped = skipped or f" but {on_path}, which is appmux's stand-in for it,"
        elif on_path is not None:
            return Path(on_path).absolute()
    packaged = _packaged()
    if packaged is not None:
        return packaged
    raise CodexError(f"no `codex` on PATH{skipped} and no codex package: {HOW_TO_GET_ONE}")


def app_server_command(binary: Path, arguments: Sequence[str]) -> tuple[str | Path, ...]:
    """Return how the app-server is started, with the person's own arguments."""
    return (binary, "app-server", *arguments)


def is_stand_in(path: Path) -> bool:
    """Return whether this program is ``appmux-codex``, by whatever name: it would run itself."""
    try:
        with path.open("rb") as file:
            start = file.read(SCRIPT_BYTES)
    except OSError:
        return False
    return start.startswith(b"#!") and _STAND_IN.search(start) is not None


def search_path(environ: Mapping[str, str]) -> str | None:
    """Return PATH with the places appended where npm, brew and pip put programs.

    A service's PATH is often without those places. Without HOME the result is PATH alone, and None
    if PATH isn't set either.
    """
    path, home = environ.get("PATH"), environ.get("HOME")
    if not home:
        return path
    named = [] if path is None else path.split(os.pathsep)
    usual = [str(place) for place in usual_places(Path(home)) if place.is_dir()]
    return os.pathsep.join([*named, *(place for place in usual if place not in named)])


def usual_places(home: Path) -> list[Path]:
    """Return directories of programs, the likelier first; some may not exist.

    Managers of node versions have a directory for each version, so these are listed anew each
    time, the newest first.
    """
    fixed = [home / ".local/bin", home / ".npm-global/bin", home / "bin", home / ".volta/bin"]
    of_all = [Path("/opt/homebrew/bin"), Path("/usr/local/bin")]
    nodes = [place for pattern in _NODES for place in home.glob(pattern)]
    return [*fixed, *of_all, *sorted(nodes, key=_version_of_node, reverse=True)]


_NODES = (
    ".nvm/versions/node/*/bin",
    ".local/share/fnm/node-versions/*/installation/bin",
    ".fnm/node-versions/*/installation/bin",
    "Library/Application Support/fnm/node-versions/*/installation/bin",
    ".local/share/mise/installs/node/*/bin",
    ".asdf/installs/nodejs/*/bin",
)
"""Where nvm, fnm, mise and asdf keep node, and with it what npm installs for all. (volta has a
directory of its own for programs.)"""

_VERSION = re.compile(r"v?\d+(\.\d+)*")


def of_one_version(home: Path) -> list[Path]:
    """Return the trees in which a version of node lies: what is found there goes with it."""
    return [home / pattern.partition("*")[0] for pattern in _NODES]


def _version_of_node(place: Path) -> list[int]:
    named = [part for part in place.parts if _VERSION.fullmatch(part)]
    return [int(number) for number in re.findall(r"\d+", named[-1])] if named else []


def _named(name: str, origin: str, search: str | None) -> Path:
    """Return the binary that somebody named: a path, or (without a slash) a command on PATH."""
    if os.sep not in name:
        on_path = shutil.which(name, path=search)
        if on_path is None:
            raise CodexError(f"no `{name}` on PATH ({origin}): {HOW_TO_GET_ONE}")
        return Path(on_path).absolute()
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise CodexError(f"the codex binary {path} ({origin}) doesn't exist: {HOW_TO_GET_ONE}")
    if not path.is_file():
        raise CodexError(
            f"the codex binary {path} ({origin}) is not a file: name the program itself"
        )
    if not os.access(path, os.X_OK):
        raise CodexError(
            f"the codex binary {path} ({origin}) is not executable: `chmod +x` it, or name another"
        )
    if is_stand_in(path):
        raise CodexError(
            f"the codex binary {path} ({origin}) is appmux's stand-in for codex, which would start"
            " itself over and over: name the real one"
        )
    return path


def _packaged() -> Path | None:
    """Return the binary of ``openai-codex-cli-bin``, or None where that isn't installed."""
    try:
        package = importlib.import_module("codex_cli_bin")
    except ModuleNotFoundError:
        return None
    try:
        path = Path(package.bundled_codex_path())
    except FileNotFoundError as error:
        raise CodexError(
            f"{error}: reinstall it with `pip install --force-reinstall openai-codex-cli-bin`"
        ) from error
    return _named(str(path), "the package openai-codex-cli-bin", None)


def codex_home(environ: Mapping[str, str]) -> Path:
    """Return Codex's own directory: ``CODEX_HOME``, else ``~/.codex``. It may not exist yet."""
    named = environ.get("CODEX_HOME")
    return Path(named).absolute() if named else Path.home() / ".codex"


def identity(binary: str | Path) -> tuple[int, ...] | None:
    """Return what distinguishes a binary from its successor: inode, size and last write.

    None if the binary doesn't exist.
    """
    try:
        status = Path(binary).stat()
    except OSError:
        return None  # between two versions, while an upgrade runs
    return (status.st_ino, status.st_size, status.st_mtime_ns)
