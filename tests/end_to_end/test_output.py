"""What each command does where its output can't be written: in the encoding, or at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import click
import pytest
import trio

from mux.cli import main
from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.devices import operator_of
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.scenes import APPROVAL

NAME: Final = "Adas Gerät 日本"
COMMAND: Final = "echo 'größer → 日本' > prüfung.txt"

TABLE: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "": (("--help",), ("--version",)),
    "status": ((), ("--all",)),
    "threads": ((),),
    "approvals": ((), ("--json",)),
    "audit": ((), ("--verify",)),
    "notices": (("--why",),),
    "devices": ((),),
    "devices scope": ((NAME, "observe"),),
    "devices rename": ((NAME, NAME.upper()), (NAME.upper(), NAME)),
    "doctor": ((),),
    "config": ((),),
    "tailnet status": ((),),
    "completion": (("fish",),),
    "service print": ((),),
    "service status": ((),),
    "approve": (("--yes", "0"),),  # the last: it is replaced by the approval's id
}
"""Commands with the arguments that they are tried with."""

NOT_TRIED: Final = {
    "serve": "prints nothing on standard output",
    "stdio": "what it writes is its client's, and no text for people",
    "demo": "takes seconds; what it draws goes the way of `status`",
    "pair": "waits for a device; what it prints goes the way of `service print`",
    "invite": "the same",
    "open": "opens a browser; what it prints goes the way of `service print`",
    "setup": "the same; it won't begin where a broker runs",
    "watch": "goes on until the turn ends; written as by `approve`",
    "say": "the same",
    "put": "needs a file and a thread; a line, written as by `approve`",
    "get": "the same",
    "join": "dials another host; a line, written as by `approve`",
    "decline": "`approve` with another word",
    "devices revoke": "as `devices rename`",
    "restart": "waits; one line, written as by `approve`",
    "notices test": "needs a push service; written as by `notices`",
    "tailnet enable": "needs tailscaled; a line, written as by `tailnet status`",
    "tailnet disable": "the same",
    "service install": "changes the host",
    "service uninstall": "changes the host",
    "service start": "changes the host",
    "service stop": "changes the host",
    "service restart": "changes the host",
    "service reload": "changes the host",
    "service logs": "is journalctl, or tail",
}

DRIVER: Final = """
import io, json, os, sys, tempfile
import mux.cli.main, mux.cli.doctor.report, mux.cli.devices.devices, mux.cli.terminal.output
import mux.cli.oversight.status, mux.cli.oversight.approvals, mux.cli.oversight.audit
from mux.cli import entry

lines, stdout, encoding = json.loads(sys.argv[1])
told = []
for line in lines:
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        if stdout == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        elif stdout == "pipe":
            reader, writer = os.pipe()
            os.dup2(writer, 1)
            os.close(reader), os.close(writer)
        else:
            os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        # As an interpreter begins with these, and ends: what follows is its main program.
        sys.argv, sys.stdout = ["appmux", *line], open(1, "w", encoding=encoding, closefd=False)
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [(each.seek(0), each.read().decode("latin-1"))[1] for each in (out, err)]
    told.append([line, status, *texts])
if child:
    print(json.dumps(told))
else:
    entry.main()
"""
"""Runs one command after another, each in a fork: loading all of it takes longer than they do."""


def named(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        whole = f"{before} {name}".strip()
        if isinstance(each, click.Group):
            if each.invoke_without_command:
                yield whole
            yield from named(each, whole)
        else:
            yield whole


def test_each_command_is_tried_or_it_is_said_why_not() -> None:
    assert set(named(main.appmux)) == {*TABLE, *NOT_TRIED} - {""}
    assert not TABLE.keys() & NOT_TRIED.keys()


@attrs.frozen
class Tried:
    """What became of a command; its texts as the bytes that were written."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> list[str]:
        return self.stderr.decode().splitlines()


@attrs.frozen
class Bench:
    broker: Native
    pending: int

    async def each(self, *, stdout: str = "", encoding: str = "utf-8") -> dict[str, Tried]:
        """All of the table."""
        lines = [
            [*command.split(), *(str(self.pending) if each == "0" else each for each in arguments)]
            for command, tried in TABLE.items()
            for arguments in tried
        ]
        with trio.fail_after(5 * PATIENCE):
            done = await trio.run_process(
                [sys.executable, "-c", DRIVER, json.dumps([lines, stdout, encoding])],
                capture_stdout=True,
                env=self.broker.home.environ(),
                cwd=self.broker.home.work,
            )
        return {
            " ".join(line): Tried(status, out.encode("latin-1"), err.encode("latin-1"))
            for line, status, out, err in json.loads(done.stdout)
        }


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A broker with something to show that no small encoding has."""
    model = Scripted()
    model.on("run it", Run(COMMAND, escalated=True), Say("Done."))
    async with (
        brokered(model=model) as broker,
        operator_of(broker) as operator,
        client(broker, "Büro →") as desk,
    ):
        await operator.request("mux/devices/add", {"name": NAME, "scopes": ["observe", "drive"]})
        thread = await desk.start_thread(broker.home.work)
        await desk.request("thread/name/set", {"threadId": thread, "name": "Prüfung → 日本"})
        await desk.start_turn(thread, "run it")
        asked = await desk.wait_method(APPROVAL)
        yield Bench(broker, asked["id"])


def has_no_bug(tried: Tried) -> bool:
    return not any(each in tried.stderr for each in (b"Traceback", b"ignored", b"Unicode"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_in_a_small_encoding_each_command_says_what_it_has_to_say(encoding: str) -> None:
    async with bench() as on:
        tried = await on.each(encoding=encoding)
    for line, done in tried.items():
        assert has_no_bug(done), (line, done.said)
        assert done.status == (1 if line == "service status" else 0), (line, done.said)
    assert b"\\u65e5\\u672c" in tried["approvals"].stdout
    assert "Büro".encode(encoding, "backslashreplace") in tried["status"].stdout
    assert b"\\u65e5\\u672c" in tried["devices"].stdout
    assert "größer".encode(encoding, "backslashreplace") in tried["approvals"].stdout
    assert b" -> " in tried["doctor"].stdout  # a sign of our own
    (shown,) = json.loads(tried["approvals --json"].stdout)
    assert "größer → 日本" in json.dumps(shown, ensure_ascii=False)


async def test_where_nothing_can_be_written_each_command_says_so_in_a_line() -> None:
    async with bench() as on:
        tried = await on.each(stdout="full")
    for line, done in tried.items():
        assert done.status == 1, (line, done.said)
        assert has_no_bug(done), (line, done.said)
        assert done.said[-1:] == [FULL], line


async def test_where_nobody_reads_each_command_ends_without_a_word() -> None:
    async with bench() as on:
        tried = await on.each(stdout="pipe")
    for line, done in tried.items():
        assert (done.status, has_no_bug(done)) == (141, True), (line, done.said)
        assert not any(each.startswith("Error") for each in done.said), line


FULL: Final = "Error: can't write to standard output: No space left on device"


@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        (">&-", 1, "Error: can't write to standard output: Bad file descriptor\n"),
        (">/dev/full", 1, f"{FULL}\n"),
        (">/dev/full 2>/dev/full", 1, ""),
        ("| true", 0, ""),
        (">/dev/null", 0, ""),
    ],
)
@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONUNBUFFERED": ""},
        {"PYTHONUNBUFFERED": "1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["buffered", "unbuffered", "locale C"],
)
async def test_from_a_shell(
    tmp_path: Path, redirected: str, status: int, said: str, environ: dict[str, str]
) -> None:
    (tmp_path / "größer 日本").mkdir()
    command = f'"{sys.executable}" -m mux config --state-dir "größer 日本" {redirected}'
    done = await trio.run_process(
        ["sh", "-c", command],
        check=False,
        capture_stdout=True,
        capture_stderr=True,
        env=os.environ | {"HOME": str(tmp_path)} | environ,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr.decode()) == (status, said)
