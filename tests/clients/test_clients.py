"""Programs of others, unmodified: each plays its story natively and on the broker.

What goes over the wire is compared, and what the program says of it. A difference that no row of
`docs/protocol.md` explains is a fault of the broker.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from mux.demo.scripted_model import Run, Say, Scripted, serve
from tests.clients import PYTHON, STORIES, missing, recording
from tests.conformance.comparing import Difference
from tests.conformance.transcript import Transcript
from tests.end_to_end.brokered import brokered
from tests.end_to_end.doors import STAND_IN, environ
from tests.end_to_end.native import Home, Native, codex_bin, native_unix, private_home
from tests.end_to_end.peer import plainly
from tests.end_to_end.scenes import eventually
from tests.page.node import node

PATIENCE: Final = 120.0
"""Seconds for a story: a program that starts several app-servers, on a busy machine."""

NATIVE_PLAYS: Final = 2
"""What native plays differ in, the broker may do either way: it is like one of so many."""

TAP: Final = Path(__file__).with_name("tap.py")


@attrs.frozen
class Client:
    """A program and its story. `package` is of npm if the story is for node, else of PyPI."""

    package: str
    story: str
    dials: bool = False
    """It dials an app-server that runs, and starts none."""
    shows: tuple[str, ...] = ()
    """Keys of the intended differences that the story shows."""
    polled: tuple[str, ...] = ()
    """Methods that the program asks again and again, and what it is told for that: how often is
    chance."""

    @property
    def for_node(self) -> bool:
        return self.story.endswith(".mjs")

    def command(self) -> Sequence[str]:
        return [str(node() if self.for_node else PYTHON), str(STORIES / self.story)]

    def missing(self) -> str:
        return missing(node=self.package) if self.for_node else missing(python=self.package)


CLIENTS: Final = (
    Client("codex_agent_sdk", "agent_sdk.py"),
    Client("codex_app_server_client", "app_server_client.py"),
    Client("codex_client_provider", "client_provider.py"),
    Client("codex_python_sdk", "python_sdk.py", shows=("only-here",)),
    Client(
        "super_agents",
        "super_agents.py",
        dials=True,
        polled=("thread/list", "thread/read", "deprecationNotice"),
    ),
    Client("@agentclientprotocol/codex-acp", "codex_acp.mjs", polled=("skills/list",)),
    Client("@twsxtd/hapi", "hapi.mjs", polled=("thread/queue/list",)),
    Client("ai-sdk-provider-codex-app-server", "codex_app_server_provider.mjs"),
    Client("ai-sdk-provider-codex-cli", "codex_cli_provider.mjs"),
)


@attrs.frozen
class Played:
    """What a program printed, and what went over its wire."""

    printed: str
    wire: Transcript


def scripted() -> Scripted:
    model = Scripted()
    model.on("look around", Run("echo seen"), Say("Seen."))
    model.on("run it", Run("echo ran", escalated=True), Say("It ran."))
    model.on("say hello", Say("Hello to you."))
    return model


def stand_in(directory: Path) -> Path:
    """An executable that is called `codex`, and writes into the directory what passes."""
    directory.mkdir()
    executable = directory / "codex"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {TAP} "$@"\n')
    executable.chmod(0o755)
    return executable


async def play(client: Client, home: Home, tap: Path, **more: str) -> Played:
    """Run a program's story, and read what was written. Raises AssertionError if it fails."""
    with plainly(), trio.fail_after(PATIENCE):
        done = await trio.run_process(
            client.command(),
            env=environ(home) | {"WORK": str(home.work), "TAP_DIRECTORY": str(tap)} | more,
            cwd=home.work,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    paths = {str(home.work): "<work>", str(home.root): "<home>", str(tap): "<tap>"}
    return Played(done.stdout.decode(), recording.told(recording.read(tap), paths, client.polled))


async def with_codex(client: Client, home: Home, tap: Path, codex: str) -> Played:
    """Play the story of a program that starts `codex`."""
    executable = stand_in(tap)
    return await play(client, home, tap, CODEX=str(executable), TAP_CODEX=codex)


async def dialled(client: Client, running: Native, tap: Path) -> Played:
    """Play the story of a program that dials a socket."""
    with short_directory(tap) as directory:
        socket = directory / "s"
        command = [sys.executable, str(TAP), "--socket", str(socket), str(running.socket.resolve())]
        between = await trio.lowlevel.open_process(
            command, env=environ(running.home) | {"TAP_DIRECTORY": str(tap)}
        )
        try:
            await eventually(socket.exists, "the tap listens")
            return await play(client, running.home, tap, APP_SERVER=str(socket))
        finally:
            between.kill()
            with trio.CancelScope(shield=True):
                await between.wait()


@contextmanager
def short_directory(tap: Path) -> Iterator[Path]:
    """A directory whose path leaves room, beside the tap's: that of a socket may have 107 bytes."""
    tap.mkdir()
    with tempfile.TemporaryDirectory(prefix="tap") as name:
        yield Path(name)


async def natively(client: Client, tap: Path) -> Played:
    model = scripted()
    if client.dials:
        async with native_unix(model=model) as running:
            return await dialled(client, running, tap)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, model)
        with private_home(model.base_url) as home:
            played = await with_codex(client, home, tap, str(codex_bin()))
        nursery.cancel_scope.cancel()
    return played


async def on_the_broker(client: Client, tap: Path) -> Played:
    async with brokered(model=scripted()) as broker:
        if client.dials:
            return await dialled(client, broker, tap)
        return await with_codex(client, broker.home, tap, STAND_IN)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.story)
async def test_a_program_of_others_plays_its_story(client: Client, tmp_path: Path) -> None:
    if why := client.missing():
        pytest.skip(why)
    broker = await on_the_broker(client, tmp_path / "broker")
    found: list[Difference] = []
    for turn in range(NATIVE_PLAYS):
        native = await natively(client, tmp_path / f"native {turn}")
        assert native.printed == broker.printed
        found = recording.unexplained(native.wire, broker.wire, client.shows)
        if not found:
            return
    pytest.fail("\n".join(map(str, found)), pytrace=False)
