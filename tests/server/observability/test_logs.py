"""What a log line looks like, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from mux.config.model import Log
from mux.server.observability.logs import LONGEST_TEXT, WITHHELD, configure, is_journal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def logger(log: Log, stream: io.StringIO) -> Any:
    configure(log, stream)
    return structlog.get_logger()


def test_json_where_nobody_watches() -> None:
    stream = io.StringIO()
    logger(Log(), stream).warning("client left", client="c1\n", owed=3, path=b"x")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert list(entry)[:3] == ["event", "level", "timestamp"]
    at = datetime.fromisoformat(entry.pop("timestamp"))
    assert at.tzinfo is not None
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert entry == {
        "event": "client left",
        "level": "warning",
        "client": "c1\n",
        "owed": 3,
        "path": "b'x'",
    }


def test_in_the_journal_lines_are_for_people_and_have_its_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mux.server.observability.logs.is_journal", lambda _stream: True)
    stream = io.StringIO()
    log = logger(Log(), stream)
    log.warning("client left", client=3)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it broke")
    first, *rest = stream.getvalue().splitlines()
    assert re.fullmatch(r"<4>\[warning\] client left +client=3", first)
    assert re.fullmatch(r"<3>\[error\] it broke *", rest[0])
    assert rest[-1] == "<3>ValueError: why"


def test_the_journal_is_known_by_the_file_that_stderr_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys; from mux.server.observability.logs import is_journal;"
        " print(is_journal(sys.stderr))"
    )
    for name, expected in (("journal", "True"), ("elsewhere", "False")):
        with (tmp_path / name).open("w") as file:
            status = (tmp_path / "journal").stat()
            done = subprocess.run(
                [sys.executable, "-c", script],
                stdout=subprocess.PIPE, stderr=file, text=True, check=True,
                env=os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            )  # fmt: skip
        assert done.stdout.strip() == expected
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not is_journal(io.StringIO())


@pytest.mark.parametrize(
    ("form", "stream", "coloured", "is_json"),
    [
        ("auto", Terminal(), True, False),
        ("auto", io.StringIO(), False, True),
        ("console", io.StringIO(), False, False),
        ("json", Terminal(), False, True),
    ],
)
def test_form_follows_the_terminal_unless_told(
    form: Any,
    stream: io.StringIO,
    coloured: bool,
    is_json: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    logger(Log(format=form), stream).info("hello", n=1)
    line = stream.getvalue()
    assert "hello" in line
    assert ("\x1b[" in line) is coloured
    assert line.startswith("{") is is_json


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logger(Log(), stream).info("hello", n=1)
    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_what_is_below_the_level_is_not_even_looked_at() -> None:
    stream = io.StringIO()
    log = logger(Log(level="warning"), stream)
    log.info("no %d", "not a number")
    log.error("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]
    assert type(log.bind()).debug.__name__ == "_nop"


def test_what_people_say_is_withheld() -> None:
    stream = io.StringIO()
    said = dict.fromkeys(WITHHELD, "hunter2")
    logger(Log(level="debug"), stream).debug("slip", method="turn/start", **said)
    assert "hunter2" not in stream.getvalue()
    assert json.loads(stream.getvalue())["params"] == "(withheld)"
    assert json.loads(stream.getvalue())["method"] == "turn/start"


def test_a_clients_name_cannot_drive_the_terminal() -> None:
    stream = Terminal()
    configure(Log(), stream)
    structlog.get_logger().info("hello", name="a\x1b[2Jb\r\nc\x9bd")
    assert r"a\x1b[2Jb\x0d\nc\x9bd" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_text_makes_a_line_that_nobody_can_read(form: Any) -> None:
    stream = io.StringIO()
    logger(Log(format=form), stream).info("hello", name="a" * 20_000_000 + "z", short="b")
    assert len(stream.getvalue()) < LONGEST_TEXT + 1000
    assert f"[{20_000_001 - LONGEST_TEXT} characters left out]" in stream.getvalue()
    assert "az" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_stays_whole(form: Any) -> None:
    stream = io.StringIO()
    log = logger(Log(format=form), stream)
    try:
        raise RuntimeError("bad\x1b")
    except RuntimeError:
        log.exception("crashed")
    assert "Traceback (most recent call last)" in stream.getvalue()
    assert "RuntimeError: bad" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_libraries_speak_through_the_same_form_and_never_at_debug() -> None:
    stream = io.StringIO()
    configure(Log(level="debug"), stream)
    library = logging.getLogger("some.library")
    library.debug("the whole message")
    library.info("as well")
    library.warning("accept failed: %s", "EMFILE")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["event"], entry["logger"], entry["level"]) for entry in entries] == [
        ("accept failed: EMFILE", "some.library", "warning")
    ]


def test_structlog_goes_without_rich_and_everybody_else_has_it() -> None:
    """In a process of its own: here pytest has loaded either."""
    program = """if True:
        from mux.config import model as config; from mux.server.observability import logs
        import sys, structlog
        assert "rich" not in sys.modules
        logs.configure(config.Log(format="console"), sys.stdout)
        try:
            raise RuntimeError("bad")
        except RuntimeError:
            structlog.get_logger().exception("crashed")
        assert not [name for name in sys.modules if name.startswith("rich")]
        import rich.console
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Traceback (most recent call last)" in done.stdout
    assert "RuntimeError: bad" in done.stdout
