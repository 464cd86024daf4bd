"""Logs: lines on stderr, for a person on a terminal or in the journal, and as JSON elsewhere.

Used by every shell, by ``structlog.get_logger()``, and by libraries, by ``logging``.

A call below the level costs one no-op method (structlog's filtering logger), so a debug line for
every message is affordable. People's words to their agents are never logged: values of the keys in
``WITHHELD`` are replaced, so that a mistake in one call shows as a mistake and not as a leak.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from mux.config.model import Log
from mux.posix.standard_streams import STDERR
from mux.server.observability.stderr import Stderr


@contextmanager
def _instead_of(module: str, stand_in: ModuleType | None = None) -> Iterator[None]:
    """Have ``import module`` give the stand-in inside, or fail, unless the module is loaded.

    Without a stand-in it is as if the module weren't installed.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = stand_in  # type: ignore[assignment]  # None is Python's way to say so
    try:
        yield
    finally:
        del sys.modules[module]


# structlog loads rich and pygments, where they are installed, to draw tracebacks: 40 ms at every
# start. They have no use here, as tracebacks are text before structlog sees them (_processors). Its
# methods that are awaited use asyncio, 8 ms; nobody here awaits a log line.
with _instead_of("rich"), _instead_of("asyncio", ModuleType("asyncio")):
    import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

WITHHELD = frozenset(
    {"params", "result", "payload", "frame", "headers", "authorization", "token", "secret"}
)
"""Keys whose values are a person's words or a credential; they are never printed."""

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

LIBRARY_LEVEL = logging.WARNING
"""Level of libraries. They log whole messages at DEBUG (trio-websocket does), so it is never
lowered."""

LONGEST_TEXT = 32 * 1024
"""Most characters of one value. A traceback through all nurseries has 10,000; a line of the
app-server's stderr has 16,384 bytes at most."""

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def configure(log: Log, stream: TextIO | None = None) -> None:
    """Set up structlog and the libraries' ``logging`` for this process. Call it once, at the start.

    If ``stream`` is None, logs go to stderr.
    """
    stream = sys.stderr if stream is None else stream
    structlog.configure(
        processors=_processors(log, stream),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log.level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=LIBRARY_LEVEL, force=True)
    if isinstance(stream, Stderr):
        stream.missed = _log_missed


def _log_missed(lines: int) -> None:
    structlog.get_logger().warning("log lines are missing here: they could not be written", n=lines)


def _processors(log: Log, stream: TextIO) -> list[Processor]:
    terminal, journal = stream.isatty(), is_journal(stream)
    console = log.format == "console" or (log.format == "auto" and (terminal or journal))
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        withhold,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        shorten,
    ]
    if not console:
        return [*first, in_order, structlog.processors.JSONRenderer(ensure_ascii=True)]
    colours = terminal and not os.environ.get("NO_COLOR")
    if journal:  # it has times and levels of its own
        plain = structlog.dev.ConsoleRenderer(colors=False, pad_level=False)
        return [*first, neutralize, without_time, plain, with_priority]
    return [*first, neutralize, structlog.dev.ConsoleRenderer(colors=colours)]


PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}
"""syslog's numbers of our levels, by which `journalctl -p` chooses (sd-daemon(3))."""


def is_journal(stream: TextIO) -> bool:
    """Return whether what is written there goes to systemd's journal, which says so itself."""
    named = os.environ.get("JOURNAL_STREAM", "")
    if not named or not (stream is sys.stderr or isinstance(stream, Stderr)):
        return False
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put first what a person looks for first: event, level, time."""
    first = {name: event.pop(name) for name in ("event", "level", "timestamp") if name in event}
    return {**first, **event}


def without_time(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out the time, which the journal has."""
    event.pop("timestamp", None)
    return event


def with_priority(_logger: WrappedLogger, method: str, rendered: Any) -> str:
    """Put the level before each line, as the journal reads it."""
    mark = f"<{PRIORITIES.get(method, PRIORITIES['info'])}>"
    return "\n".join(mark + line for line in str(rendered).split("\n"))


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values that must not be printed."""
    for key in WITHHELD.intersection(event):
        event[key] = "(withheld)"
    return event


def shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut the middle out of very long texts: of a traceback both ends are of use."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            more = f"[{len(value) - LONGEST_TEXT} characters left out]"
            half = LONGEST_TEXT // 2
            event[key] = f"{value[:half]}{more}{value[-half:]}"
    return event


def neutralize(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters: a client's name must not control the operator's terminal.

    Line ends stay only in a traceback. The JSON format escapes all of them by itself.
    """
    for key, value in event.items():
        if isinstance(value, str):
            text = value.translate(_CONTROLS)
            event[key] = text if key == "exception" else text.replace("\n", "\\n")
    return event


class _FromLibraries(logging.Handler):
    """Passes what libraries log on to structlog, so that stderr has one form."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )
