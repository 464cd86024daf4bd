"""``appmux demo``: two clients on one real app-server, and what each of them saw.

    run
    ├─ the scripted model     in this process
    ├─ appmux serve           a process of its own, with a private HOME and state directory
    │  └─ codex app-server    the real one
    └─ terminal, phone        two clients, over the unix socket and over WebSocket

The broker is reached as by any client; ``stage`` says where it listens.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Final

import attrs
import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mux import client
from mux.client import Client, ClientError, Json
from mux.demo import door, scripted_model
from mux.demo.picture import (
    APPROVAL,
    WIDTH,
    Expected,
    Seen,
    missing,
    picture,
    summary,
    without_web_fonts,
)
from mux.demo.stage import (
    ASKING,
    DONE,
    NOTE,
    NOTE_FILE,
    SHARED,
    Broker,
    DemoError,
    Home,
    private_home,
    script,
    serving,
)

PATIENCE: Final = 60.0
"""Seconds for the whole story, which takes six; more is for a cold disk or a busy machine."""

FRAME: Final = 0.05
"""Seconds between two pictures on a terminal."""

READING_TIME: Final = 0.8
"""Seconds that an approval is shown on both sides before it is answered, so that one can see it."""

KEPT_FREE: Final = 14
"""Lines of the terminal without a row of the live picture: some rows take several lines."""

SIGNAL_STATUS: Final = 128
"""Added to N in the exit status for "ended by signal N", as shells do."""


async def run(codex: Path, hold: bool, svg: Path | None, *, opened: bool = False) -> int:
    """Play the demo, and return the exit status: 0 if both clients saw everything, else 1.

    ``opened``: hold, and open the page in this machine's browser. Raises ``DemoError`` if the demo
    can't be played, for example because the broker doesn't start.
    """
    _check_directory(svg)
    demo = _Demo(codex, hold or opened, svg, opened)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(demo.obey, signals, nursery.cancel_scope)
            await demo.play()
            nursery.cancel_scope.cancel()
    return demo.status


def _check_directory(svg: Path | None) -> None:
    if svg is not None and not svg.absolute().parent.is_dir():
        raise DemoError(f"can't save {svg}: there is no directory {svg.absolute().parent}")


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return Console(highlight=False, markup=False, width=width)


@attrs.define(eq=False, repr=False)
class _Demo:
    """A run of the demo."""

    codex: Path
    hold: bool
    svg: Path | None
    opened: bool = False
    """The page is opened in this machine's browser."""
    status: int = 1
    console: Console = attrs.field(factory=_console)
    first: Seen = attrs.field(factory=lambda: Seen("terminal", "unix socket"))
    second: Seen = attrs.field(factory=lambda: Seen("phone", "WebSocket"))
    facts: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    """Why the demo failed; empty if it didn't."""
    _expected: Expected = attrs.field(factory=lambda: Expected({}, f"{NOTE}\n"))
    _thread: str = ""
    _holding: bool = False
    _began: float = attrs.field(factory=trio.current_time)
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """End on a signal; for ``--hold`` that is the intended end."""
        async for number in signals:
            if not self._holding:
                self.status = SIGNAL_STATUS + number
            scope.cancel()
            return

    async def play(self) -> None:
        """Play everything, from the model to the summary; then hold, if that was requested."""
        async with trio.open_nursery() as nursery:
            base_url: str = await nursery.start(scripted_model.serve, script())
            with private_home(base_url) as home:
                async with serving(home, self.codex) as broker:
                    await self._perform(home, broker)
                    self._show()
                    if self.hold and not self.wrong:
                        self._holding = True
                        self._invite(home, broker)
                        await self._let_browsers_in(home, broker)
                if self.wrong:  # the log is whole only now
                    words = f"The broker's last words:\n{broker.log_tail()}"
                    self.console.print(words, soft_wrap=True)
            nursery.cancel_scope.cancel()

    # -- the story ---------------------------------------------------------------------------------

    async def _perform(self, home: Home, broker: Broker) -> None:
        """Play the story, live on a terminal."""
        async with self._drawn():
            try:
                with trio.fail_after(PATIENCE):
                    await broker.wait_listening()
                    await self._story(home, broker)
            except ClientError as failure:
                self.wrong.append(f"stopped: {failure}")
            except trio.TooSlowError:
                self.wrong.append(f"stopped: the story wasn't over after {PATIENCE:.0f} s")
        self._judge(home)

    async def _story(self, home: Home, broker: Broker) -> None:
        first, second = self.first, self.second
        async with client.connect(broker.urls["unix"], self._recorder(first)) as terminal:
            await terminal.initialize(first.name)
            started = await terminal.request("thread/start", {"cwd": str(home.work)})
            self._thread = started["thread"]["id"]
            self._did(first, "attached; started a thread")
            await self._ended(await self._start_turn("Hello?", terminal), terminal)
            async with client.connect(broker.urls["ws"], self._recorder(second)) as phone:
                await phone.initialize(second.name)
                joined = await phone.request("thread/resume", {"threadId": self._thread})
                turns = len(joined["thread"]["turns"])
                self._did(second, f"attached; joined, with {turns} turn so far")
                await self._shared_turn(terminal, phone)
                await self._approved_turn(terminal, phone)
                self._note_facts(await phone.request("mux/status"))

    async def _shared_turn(self, terminal: Client, phone: Client) -> None:
        """Have the phone start a turn, which both see stream."""
        self.second.asks("What do we share?")
        turn = await self._start_turn("What do we share?", phone)
        self._expected.messages[turn] = (SHARED,)
        await self._ended(turn, terminal, phone)

    async def _approved_turn(self, terminal: Client, phone: Client) -> None:
        """Have the terminal start a turn that needs an approval, which the phone gives."""
        self.first.asks("Leave a note for us.")
        turn = await self._start_turn("Leave a note for us.", terminal)
        self._expected.messages[turn] = (ASKING, DONE)
        await terminal.wait(lambda m: _is(m, APPROVAL))
        request = await phone.wait(lambda m: _is(m, APPROVAL))
        await trio.sleep(READING_TIME)
        self.second.answers(request["id"], "accept", self._now())
        await phone.respond(request["id"], {"decision": "accept"})
        await self._ended(turn, terminal, phone)

    async def _ended(self, turn: str, *clients: Client) -> None:
        """Wait until each of the clients was notified of the turn's end."""
        for peer in clients:
            await peer.wait(
                lambda m: _is(m, "turn/completed") and m["params"]["turn"]["id"] == turn
            )

    async def _start_turn(self, words: str, asker: Client) -> str:
        input = [{"type": "text", "text": words, "text_elements": []}]
        answer = await asker.request("turn/start", {"threadId": self._thread, "input": input})
        return str(answer["turn"]["id"])

    def _judge(self, home: Home) -> None:
        expected = self._expected
        gaps = missing(self.first, expected) + missing(self.second, expected)
        self.wrong += [f"missing: {gap}" for gap in gaps]
        if self.first.answered or len(self.second.answered) != 1:
            self.wrong.append(f"missing: an answer by the {self.second.name} alone")
        try:
            written = (home.work / NOTE_FILE).read_text()
        except OSError as failure:
            self.wrong.append(f"missing: the note that the command leaves: {failure.strerror}")
        else:
            if written != expected.note:
                self.wrong.append(
                    f"missing: a command that ran exactly once: the note is {written!r}"
                )

    def _note_facts(self, report: Json) -> None:
        if report["serverRequests"]:
            self.wrong.append("missing: an end of the approval: the broker still waits")
        self.facts.append(f"Behind both: one app-server, codex {report['appServer']['version']}.")

    def _recorder(self, seen: Seen) -> Callable[[Json], None]:
        def on_message(message: Json) -> None:
            seen.record(message, self._now())
            self._news.set()

        return on_message

    def _did(self, seen: Seen, text: str) -> None:
        seen.did(text, self._now())
        self._news.set()

    def _now(self) -> float:
        return trio.current_time() - self._began

    # -- the picture -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _drawn(self) -> AsyncIterator[None]:
        """Draw the picture repeatedly until the block ends, if stdout is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._draw, live)
                yield
                nursery.cancel_scope.cancel()

    async def _draw(self, live: Live) -> None:
        last = max(1, self.console.height - KEPT_FREE)
        while True:
            await self._news.wait()
            self._news = trio.Event()
            live.update(picture(self.first, self.second, last=last), refresh=True)
            await trio.sleep(FRAME)

    def _show(self) -> None:
        """Print the final picture, and what it shows; or what went wrong."""
        whole = self._whole()
        self.console.print(whole)
        if self.wrong:
            return
        self.status = 0
        if self.svg is not None:
            self._save(whole, self.svg)

    def _whole(self) -> RenderableType:
        if self.wrong:
            below = Group(*(Text(each, style="bold red") for each in self.wrong))
        else:
            below = summary(self.first, self.second, self._expected, self.facts)
        return Group(picture(self.first, self.second), below)

    def _save(self, whole: RenderableType, svg: Path) -> None:
        paper = Console(record=True, width=WIDTH, file=StringIO(), highlight=False, markup=False)
        paper.print(whole)
        drawn = without_web_fonts(paper.export_svg(title="appmux demo"))
        try:
            svg.write_text(drawn, encoding="utf-8")
        except OSError as failure:
            raise DemoError(f"can't save {svg}: {failure.strerror}") from failure
        self.console.print(f"Saved {svg}.", soft_wrap=True)

    def _invite(self, home: Home, broker: Broker) -> None:
        """Print how the user's own TUI can attach."""
        here = {"HOME": home.home, "CODEX_HOME": home.codex_home}
        where = " ".join(f"{name}={shlex.quote(str(path))}" for name, path in here.items())
        codex, work = shlex.quote(str(self.codex)), shlex.quote(str(home.work))
        lines = [
            "",
            "Serving until Ctrl-C. Your own TUI on this thread (no login; open it twice):",
            f"  cd {work} && {where} {codex} resume {self._thread} --remote {broker.urls['ws']}",
            "on a new one:",
            f"  cd {work} && {where} {codex} --remote {broker.urls['ws']}",
            "Ask it to 'leave a note', and an approval is raised.",
        ]
        for line in lines:
            self.console.print(line, soft_wrap=True)

    async def _let_browsers_in(self, home: Home, broker: Broker) -> None:
        def shown(link: str) -> None:
            self.console.print(f"The page, for one browser, within five minutes:\n  {link}")

        page = broker.urls["ws"].replace("ws://", "http://")
        opened = home.root if self.opened else None
        await door.keep(broker.urls["unix"], page, shown, opened, home.work)


def _is(message: Json, method: str) -> bool:
    return message.get("method") == method
