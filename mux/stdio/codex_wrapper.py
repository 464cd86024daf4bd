"""``appmux-codex``: stands in for ``codex`` where a program lets one choose the executable.

``appmux-codex … app-server`` on stdio is the stdio bridge; with ``--listen`` and a unix socket or a
loopback port of the program's own it is the relay. For all other arguments this process becomes the
real codex, with arguments, environment, terminal and exit status unchanged.

Used by IDE extensions and SDKs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from mux.config import locate
from mux.config.codex_binary import CodexError, find_codex
from mux.errors import AppmuxError
from mux.posix import standard_streams
from mux.stdio import attach, bridge, command_line

APP_SERVER: Final = "app-server"
STDIO: Final = "stdio://"
UNIX, WS = "unix://", "ws://"
LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]"})
"""Hosts of a listener that is relayed. The native one takes addresses alone, no names."""

WAIT_VARIABLE: Final = "APPMUX_STDIO_WAIT"
"""Seconds, as ``appmux stdio --wait``: the programs that start us have no flag for it."""

ROOT_VALUES: Final = frozenset(
    {
        "-c", "--config", "--enable", "--disable", "-p", "--profile", "-m", "--model", "-s",
        "--sandbox", "-a", "--ask-for-approval", "-C", "--cd", "--add-dir", "--local-provider",
    }
)  # fmt: skip
"""codex's own flags, before ``app-server``, that take a value."""

ROOT_OTHERS_PROGRAM: Final = frozenset(
    {
        "-h", "--help", "-V", "--version", "-i", "--image", "--remote", "--remote-auth-token-env",
        "--",
    }
)  # fmt: skip
"""codex's own flags with which the app-server isn't wanted, whatever follows."""

VALUES: Final = frozenset(
    {
        "-c", "--config", "--enable", "--disable", "--listen", "--code-mode-host",
        "--startup-client-info", "--cloud-skills-snapshot", "--ws-auth", "--ws-token-file",
        "--ws-token-sha256", "--ws-shared-secret-file", "--ws-issuer", "--ws-audience",
        "--ws-max-clock-skew-seconds",
    }
)  # fmt: skip
"""Flags of ``codex app-server`` that take a value."""

PLAIN: Final = frozenset({"--stdio", "--analytics-default-enabled", "--strict-config"})
"""Flags without a value that mean stdio, or nothing to an app-server that runs already."""

SWITCHES: Final = PLAIN | {"--startup-sign-out"}
"""All flags of ``codex app-server`` without a value."""

OTHERS_PROGRAM: Final = frozenset(
    {"-h", "--help", "-V", "--version", "--print-startup-config", "--"}
)
"""Flags with which the app-server prints something and ends."""

SUBCOMMANDS: Final = frozenset({"daemon", "proxy", "generate-ts", "generate-json-schema", "help"})

_OVERRIDE: Final = frozenset({"-c", "--config"})
_NAMES_A_KEY: Final = _OVERRIDE | {"--enable", "--disable"}


def main() -> NoReturn:
    """Serve as the stdio bridge and exit, or become codex."""
    standard_streams.complete()
    arguments = sys.argv[1:]
    ignored = as_door(arguments)
    try:
        if ignored is None:
            become_codex(arguments, os.environ)
        wait = _wait(os.environ)
        overrides = command_line.read_overrides(override_texts(arguments), ignored, "appmux-codex")
        url = listen_url(arguments)
        if url is not None:
            from mux.stdio import relay  # noqa: PLC0415 (the bridge's start is timed)

            relay.run(url, attach.start_service, overrides)
        sys.exit(bridge.run(None, wait, overrides))
    except AppmuxError as error:
        standard_streams.write_stderr(f"Error: {error}\n")
        sys.exit(error.exit_status)


# -- which of the two ------------------------------------------------------------------------------


def as_door(arguments: Sequence[str]) -> list[str] | None:
    """Return the ignored flags if these arguments start an app-server that we stand in for.

    That is one on stdio, or on a listener that can be relayed; else return None. Overrides that say
    what its threads may do aren't ignored (``override_texts``).

    ``arguments`` are those after ``codex``. Doubtful arguments go to the real codex, which says
    what is wrong with them. Of an override only the key is named: its value may be a secret.
    """
    others: list[tuple[str, str]] = []
    left = iter(arguments)
    for flag, value in _flags(left, ROOT_VALUES):
        if flag == APP_SERVER:
            break
        if value is None or not flag.startswith("-") or flag in ROOT_OTHERS_PROGRAM:
            return None
        others.append((flag, value))
    else:
        return None
    unknown = listens = False
    for flag, value in _flags(left, VALUES):
        if not flag.startswith("-"):
            # A subcommand; or the value of a flag that this version doesn't know.
            if not unknown or flag in SUBCOMMANDS:
                return None
        elif value is None or flag in OTHERS_PROGRAM:
            return None
        elif flag == "--listen":
            if value != STDIO and not _is_relayed(value):
                return None
            listens = value != STDIO
        else:
            others.append((flag, value))
        unknown = flag.startswith("-") and flag not in VALUES | SWITCHES
    if listens and any(flag.startswith("--ws-") for flag, _ in others):
        return None  # it asks for a token of its own, which the broker's listener doesn't know
    ignored = (each for each in others if each[0] not in PLAIN and not _is_override(*each))
    return [_shown(*each) for each in ignored]


def _is_relayed(url: str) -> bool:
    """Return whether a listen URL is for the relay: a path of one's own, or a loopback port.

    ``unix://`` alone is Codex's control socket, which is the broker's own business.
    """
    if url.startswith(UNIX):
        return len(url) > len(UNIX)
    host, _, port = url.removeprefix(WS).rpartition(":")
    return url.startswith(WS) and host in LOOPBACK and port.isdecimal()


def listen_url(arguments: Sequence[str]) -> str | None:
    """Return the URL of ``--listen``, None for stdio, of arguments that ``as_door`` takes."""
    url = None
    for flag, value in _flags(iter(arguments), ROOT_VALUES | VALUES):
        if flag == "--listen":
            url = value
        elif flag == "--stdio":
            url = None
    return None if url == STDIO else url


def override_texts(arguments: Sequence[str]) -> list[str]:
    """Return the ``key=value`` of the overrides that aren't ignored, in their order."""
    flags = _flags(iter(arguments), ROOT_VALUES | VALUES)
    return [value for flag, value in flags if value and _is_override(flag, value)]


def _is_override(flag: str, value: str) -> bool:
    if flag not in _OVERRIDE:
        return False
    from mux.core.protocol.threads.overrides import is_override  # noqa: PLC0415 (few programs have any)

    return is_override(value.partition("=")[0].strip())


def _flags(left: Iterator[str], with_value: frozenset[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each flag with its value, and each other argument with an empty value.

    The value is empty if the flag has none, and None if it lacks one that it needs.
    """
    for argument in left:
        flag, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            yield flag, value
        elif argument in with_value:
            yield argument, next(left, None)
        elif argument[:2] in with_value:  # -ckey=value
            yield argument[:2], argument[2:].removeprefix("=")
        else:
            yield argument, ""


def _shown(flag: str, value: str) -> str:
    return f"{flag} {value.partition('=')[0]}" if flag in _NAMES_A_KEY else flag


def _wait(environ: Mapping[str, str]) -> float:
    """Return the seconds that the environment sets, as ``appmux stdio --wait`` would.

    Raises ``AppmuxError`` if the text is no number.
    """
    text = environ.get(WAIT_VARIABLE)
    if not text:
        return bridge.WAIT
    if not text.replace(".", "", 1).isdigit():
        raise AppmuxError(f"environment {WAIT_VARIABLE}: {text!r} isn't a number of seconds")
    return float(text)


# -- the real one ----------------------------------------------------------------------------------


def become_codex(arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Run the real codex in this process's place. Raises ``CodexError``."""
    named, origin = locate.codex_bin(environ)
    binary = find_codex(named, environ, origin)
    if binary.resolve() == Path(sys.argv[0]).resolve():
        raise CodexError(f"{binary} is this program itself: name the real codex ({origin})")
    # Python ignores these two signals, and an ignored signal stays ignored over an exec.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execve(binary, [str(binary), *arguments], _as_given(environ))
    except OSError as failure:
        raise CodexError(f"{binary} can't be run: {failure.strerror}") from failure


def _as_given(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what Python added: LC_CTYPE in a C locale (PEP 538)."""
    given = dict(environ)
    try:
        at_first = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return given
    if not any(each.startswith(b"LC_CTYPE=") for each in at_first):
        given.pop("LC_CTYPE", None)
    return given
