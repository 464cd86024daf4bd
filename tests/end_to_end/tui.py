"""The real TUI on a test bench: `codex_binary` in a terminal of its own, keys pressed, the screen
read.

The terminal is the one pane of a tmux server that belongs to one test, so nothing is shared with a
tmux that somebody uses. What is read is what a person sees: the screen, without its scrollback.

Hands to: the tests. Hears from: `codex_binary`, by the screen that it draws.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.end_to_end.native import Home, codex_bin

# Wide and high enough that nothing that is looked for is wrapped, or scrolls away.
COLUMNS: Final = 120
ROWS: Final = 40
# A terminal doesn't say when it was drawn on: how often to look. A look takes tmux some 3 ms.
LOOK_SECONDS: Final = 0.05
# The TUI is up within a second; where 18 programs want two cores it takes 20.
PATIENCE: Final = 60.0
# The TUI itself loses a key now and then that it is given while it draws something new (4 `y` of 50
# at a question just shown; by the app-server's own listener as often as by the broker). So a key
# that has shown no effect after this time is pressed again, as a person would.
KEY_PATIENCE: Final = 3.0
ATTEMPTS: Final = 5
# Hung up on, the TUI goes within 0.2 s.
END_PATIENCE: Final = 5.0
# A table of `config.toml` that spares the TUI what would make a screen differ from run to run.
# Without `disable_paste_burst`, keys pressed as fast as a test does are taken for a paste, and the
# Enter after them for a line of it.
QUIET: Final[dict[str, Any]] = {
    "disable_paste_burst": True,
    "tui": {"animations": False, "show_tooltips": False},
}


def tmux_is_missing() -> bool:
    """Whether there is no tmux here to run the TUI in."""
    return shutil.which("tmux") is None


@attrs.frozen
class Tui:
    """A TUI that runs. `tmux` is the command that reaches its terminal."""

    tmux: Sequence[str]

    async def screen(self) -> str:
        """The screen as it is now: its rows, without the blanks at their ends."""
        return await _run(*self.tmux, "capture-pane", "-p")

    async def see(self, *texts: str, timeout: float = PATIENCE) -> str:
        """Wait until the screen shows all of `texts` at once; that screen.

        Raises AssertionError, which shows the screen, after `timeout` seconds.
        """
        return await self._look(
            lambda screen: all(text in screen for text in texts), f"{texts} not seen", timeout
        )

    async def gone(self, text: str, timeout: float = PATIENCE) -> str:
        """Wait until the screen doesn't show `text`; that screen. Raises as `see` does."""
        return await self._look(lambda screen: text not in screen, f"{text!r} not gone", timeout)

    async def say(self, text: str) -> None:
        """Type `text` at the prompt and send it, once it stands there whole."""
        typed = ("send-keys", "C-u", ";", "send-keys", "-l", text)
        await self._insist(typed, lambda screen: _at_prompt(screen) == text, f"{text!r} not typed")
        sent = ("send-keys", "Enter")
        await self._insist(sent, lambda screen: _at_prompt(screen) != text, f"{text!r} not sent")

    async def press(self, key: str, wanted: str) -> None:
        """Press a key until the screen shows what is `wanted`; a fresh prompt may take none."""
        unseen = f"{wanted!r} not seen by {key}"
        await self._insist(("send-keys", key), lambda screen: wanted in screen, unseen)

    async def answer(self, question: str, key: str) -> None:
        """Answer a `question` on the screen by a key, which makes it go."""
        gone = f"{question!r} not answered by {key}"
        await self._insist(("send-keys", key), lambda screen: question not in screen, gone)

    async def _insist(
        self, command: Sequence[str], wanted: Callable[[str], bool], wrong: str
    ) -> None:
        """Press keys by a tmux command, and again while the screen isn't as `wanted`."""
        for _ in range(ATTEMPTS - 1):
            await _run(*self.tmux, *command)
            with contextlib.suppress(AssertionError):
                await self._look(wanted, wrong, KEY_PATIENCE)
                return
        await _run(*self.tmux, *command)
        await self._look(wanted, wrong, PATIENCE)  # none was lost: the machine is busy

    async def _look(self, wanted: Callable[[str], bool], wrong: str, timeout: float) -> str:
        screen = await self.screen()
        with trio.move_on_after(timeout):
            while not wanted(screen):
                await trio.sleep(LOOK_SECONDS)
                screen = await self.screen()
            return screen
        raise AssertionError(f"{wrong} within {timeout:g} s; the screen:\n{screen}")


def _at_prompt(screen: str) -> str:
    """What stands at the prompt, which is the last of the lines marked as a person's words."""
    marked = [line for line in screen.splitlines() if line.startswith("› ")]
    return marked[-1].removeprefix("› ") if marked else ""


@asynccontextmanager
async def tui(home: Home, *arguments: str, codex: Path | None = None) -> AsyncIterator[Tui]:
    """`codex` (another than the bench's, if named) in `home`, on a terminal of `COLUMNS` × `ROWS`.

    It may not be at its prompt yet: `see` tells. At the end it is hung up on, as by a terminal
    window that is closed.
    """
    # `-u`: the screen's characters as they are, whatever this process's locale can show.
    tmux = ("tmux", "-u", "-S", str(home.root / "tmux"), "-f", os.devnull)
    command = shlex.join([str(codex or codex_bin()), *arguments])
    start = ["start-server"]
    # A TUI that ends by itself leaves its last screen, for a failing test to show.
    start += [";", "set", "-g", "remain-on-exit", "on"]
    start += [";", "set", "-g", "default-shell", "/bin/sh"]
    start += [";", "set", "-g", "default-terminal", "screen-256color"]
    start += [";", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS)]
    start += ["-c", str(home.work), f"exec {command}"]
    await _run(*tmux, *start, env=home.environ())
    try:
        yield Tui(tmux)
    finally:
        with trio.CancelScope(shield=True):
            await _hang_up(tmux)
            await _run(*tmux, "kill-server")


async def _hang_up(tmux: Sequence[str]) -> None:
    """End the TUI, and return when it has ended."""
    for number in (signal.SIGHUP, signal.SIGKILL):
        with trio.move_on_after(END_PATIENCE):
            while (pane := await _run(*tmux, "display", "-p", "#{pane_dead} #{pane_pid}"))[
                0
            ] != "1":
                with contextlib.suppress(ProcessLookupError):  # tmux has yet to see its end
                    os.kill(int(pane.split()[1]), number)
                await trio.sleep(LOOK_SECONDS)
            return


async def _run(*command: str, env: Mapping[str, str] | None = None) -> str:
    ran = await trio.run_process(command, capture_stdout=True, env=env)
    return ran.stdout.decode()


# --- A connection that breaks --------------------------------------------------------------------


@attrs.define
class Cable:
    """A way to a WebSocket listener, at `url`, which can be cut and mended.

    `head` is what the listener first answered, `carried` how many bytes it sent in all.
    """

    url: str
    _far: tuple[str, int]
    head: bytes = b""
    carried: int = 0
    _mended: trio.Event = attrs.field(factory=trio.Event)
    _uncut: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def cut(self) -> None:
        """Break the connection that there is. The next one gets no further before `mend`."""
        self._mended = trio.Event()
        self._uncut.cancel()

    def mend(self) -> None:
        """Let connections through again."""
        self._mended.set()

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection until an end of it closes, or it is cut."""
        await self._mended.wait()
        far = await trio.open_tcp_stream(*self._far)
        with trio.CancelScope() as self._uncut:
            async with near, far, trio.open_nursery() as both:
                both.start_soon(_pour, near, far, both.cancel_scope, lambda _: None)
                both.start_soon(_pour, far, near, both.cancel_scope, self._count)

    def _count(self, piece: bytes) -> None:
        self.head = self.head or piece
        self.carried += len(piece)


async def _pour(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    both: trio.CancelScope,
    passes: Callable[[bytes], None],
) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for piece in source:
            passes(bytes(piece))
            await sink.send_all(piece)
    both.cancel()


@asynccontextmanager
async def cable(url: str) -> AsyncIterator[Cable]:
    """A cable to the WebSocket listener at `url`, whole."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    [listener] = await trio.open_tcp_listeners(0, host=host)
    own = Cable(f"ws://{host}:{listener.socket.getsockname()[1]}", (host, int(port)))
    own.mend()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, own.carry, [listener])
        yield own
        nursery.cancel_scope.cancel()
