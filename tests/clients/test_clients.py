"""Programs of others, unmodified: each plays its story natively and on the broker.

What goes over the wire is compared, and what the program says of it. A difference that no row of
`docs/protocol.md` explains is a fault of the broker.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from mux.demo.scripted_model import Run, Say, Scripted, serve
from tests.clients import PYTHON, STORIES, missing, recording
from tests.conformance.transcript import Transcript
from tests.end_to_end.brokered import brokered
from tests.end_to_end.doors import STAND_IN, environ
from tests.end_to_end.native import Home, codex_bin, private_home
from tests.end_to_end.peer import plainly
from tests.page.node import node

PATIENCE: Final = 120.0
"""Seconds for a story: a program that starts several app-servers, on a busy machine."""

TAP: Final = Path(__file__).with_name("tap.py")


@attrs.frozen
class Client:
    """A program and its story. `package` is of npm if `node`, else of PyPI, as it is imported."""

    package: str
    story: str
    node: bool = False
    shows: tuple[str, ...] = ()
    """Keys of the intended differences that the story shows."""

    def command(self) -> Sequence[str]:
        return [str(node() if self.node else PYTHON), str(STORIES / self.story)]

    def missing(self) -> str:
        return missing(node=self.package) if self.node else missing(python=self.package)


CLIENTS: Final = (
    Client("codex_app_server_client", "app_server_client.py"),
    Client("codex_client_provider", "client_provider.py"),
    Client("codex_python_sdk", "python_sdk.py", shows=("only-here",)),
    Client("codex_agent_sdk", "agent_sdk.py"),
)


@attrs.frozen
class Played:
    """What a program printed, and what went over its wire."""

    printed: str
    wire: Transcript


def tapped(directory: Path) -> Path:
    """An executable that is called `codex`, and writes into the directory what passes."""
    directory.mkdir()
    executable = directory / "codex"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {TAP} "$@"\n')
    executable.chmod(0o755)
    return executable


async def play(client: Client, home: Home, codex: str, tap: Path) -> Played:
    """Run a program's story, with `codex` behind a tap. Raises AssertionError if it fails."""
    executable = tapped(tap)
    more = {
        "CODEX": str(executable),
        "WORK": str(home.work),
        "TAP_CODEX": codex,
        "TAP_DIRECTORY": str(tap),
    }
    with plainly(), trio.fail_after(PATIENCE):
        done = await trio.run_process(
            client.command(),
            env=environ(home) | more,
            cwd=home.work,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    paths = {str(home.work): "<work>", str(home.root): "<home>", str(tap): "<tap>"}
    return Played(done.stdout.decode(), recording.told(recording.read(tap), paths))


def scripted() -> Scripted:
    model = Scripted()
    model.on("run it", Run("echo ran", escalated=True), Say("It ran."))
    model.on("say hello", Say("Hello to you."))
    return model


async def natively(client: Client, tap: Path) -> Played:
    model = scripted()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, model)
        with private_home(model.base_url) as home:
            played = await play(client, home, str(codex_bin()), tap)
        nursery.cancel_scope.cancel()
    return played


async def on_the_broker(client: Client, tap: Path) -> Played:
    async with brokered(model=scripted()) as broker:
        return await play(client, broker.home, STAND_IN, tap)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.story)
async def test_a_program_of_others_plays_its_story(client: Client, tmp_path: Path) -> None:
    if why := client.missing():
        pytest.skip(why)
    native = await natively(client, tmp_path / "native")
    broker = await on_the_broker(client, tmp_path / "broker")
    assert native.printed == broker.printed
    found = recording.unexplained(native.wire, broker.wire, client.shows)
    assert not found, "\n".join(map(str, found))
