"""One round: a broker, clients and an app-server that say anything, each line judged by the oracle.

All that happens is drawn from the seed and the round's number, so that any round can be had again
alone. In the end all is answered, or the app-server dies; everybody leaves, and nothing is left.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any, Final

import attrs

from mux.core import commands, events
from mux.core.broker import Broker
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.threads.directories import ResolvedPath
from mux.core.state.app_server import Introduction
from tests.core.stories import TICK
from tests.fuzz.app_server_lines import AppServer
from tests.fuzz.client_lines import SCOPE_SETS, Voice
from tests.fuzz.corpus import Corpus
from tests.fuzz.oracle import FIRST_WIRE, FaultError, Oracle, Seen, parsed
from tests.fuzz.registries import LIMITS, left_over, sizes

LINES: Final = 1_000
MOST_CLIENTS: Final = 8
LATEST: Final = 40
"""Events that are shown of a round that failed."""
IN_PIECES: Final = 64
"""Of longer lines some come in pieces, as if they were very long."""

IN_THE_END: Final = 2_000.0
"""Seconds after which nothing of one that has left may be kept: more than any of the limits."""


@attrs.define(eq=False, repr=False)
class Round:
    """See the module. ``latest``: the last events; ``waiting``: events that shells owe the core."""

    rng: random.Random
    corpus: Corpus
    broker: Broker = attrs.field(init=False)
    oracle: Oracle = attrs.field(factory=Oracle)
    app_server: AppServer = attrs.field(init=False)
    voices: dict[ClientId, Voice] = attrs.field(factory=dict)
    lagging: set[ClientId] = attrs.field(factory=set)
    threads: list[str] = attrs.field(factory=lambda: ["old"])
    strangers: list[Any] = attrs.field(factory=list)
    waiting: list[events.Event] = attrs.field(factory=list)
    latest: deque[events.Event] = attrs.field(factory=lambda: deque(maxlen=LATEST))
    now: float = 100.0
    starts_at: float | None = 0.0
    exits: bool = False
    over: bool = False
    generation: int = 0
    numbers: int = 0
    empty: Counter[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.broker = Broker(LIMITS, Introduction("appmux", "0.1"), first_id=7_000)
        self.broker.state.last_wire = FIRST_WIRE
        self.empty = sizes(self.broker)
        self.app_server = AppServer(
            self.rng, self.corpus, self.threads, self.oracle.asked, self.oracle.owner
        )

    def play(self, lines: int = LINES) -> None:
        """The whole round."""
        for _ in range(lines):
            self._go_on()
            if self.over:
                return
        self._end()

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def _go_on(self) -> None:
        """One line of somebody; and now and then something else before it."""
        rng = self.rng
        self._pass_time(rng.random() * 0.004)
        kind = rng.random()
        if kind < 0.03 and len(self.voices) < MOST_CLIENTS:
            self._attach()
        elif kind < 0.05 and self.voices:
            self._happens_to(rng.choice(list(self.voices)))
        elif kind < 0.056:
            self._pass_time(rng.choice((0.3, 1.1, 12.0, 31.0, 61.0, 125.0, 700.0)))
        elif kind < 0.058:
            self._tell(events.ClockMoved(rng.choice((-3600.0, 5.0, 86400.0))))
        elif kind < 0.0595:
            self.exits = True
        if self.exits and self.oracle.is_up:
            self._exit()
        if self.starts_at is not None and self.starts_at <= self.now:
            self._start()
        while self.waiting and rng.random() < 0.6:
            self._tell(self.waiting.pop(rng.randrange(len(self.waiting))))
        if self.oracle.is_up and (rng.random() < 0.55 or not self.voices):
            self._app_server_says(self.app_server.says())
        elif self.voices:
            voice = self.voices[rng.choice(list(self.voices))]
            self._client_says(voice, voice.says(plainly=voice.id in self.lagging))
        elif len(self.voices) < MOST_CLIENTS:
            self._attach()

    def _attach(self) -> None:
        rng = self.rng
        self.numbers += 1
        id, scopes = self.numbers, rng.choice(SCOPE_SETS)
        seen = self.oracle.clients[id] = Seen(id, scopes)
        voice = Voice(id, rng, self.corpus, self.threads, self.strangers, seen.offers)
        self.voices[id] = voice
        expires = 900.0 if rng.random() < 0.1 else float("inf")
        device = rng.choice(("", "", "1", "2"))
        principal = Principal(f"p{id % 3}", "device" if device else "jwt", None, scopes, device)
        local = rng.random() < 0.3
        self._tell(events.ClientAttached(id, principal, "ws", "peer", expires, local=local))
        if id in self.voices and rng.random() < 0.95:
            self._client_says(voice, voice.initialize())

    def _happens_to(self, client: ClientId) -> None:
        kind = self.rng.random()
        if kind < 0.5:
            self._leave(client)
        elif kind < 0.85:
            self.lagging.add(client)
            self._tell(events.ClientLags(client))
        elif kind < 0.95:
            self.oracle.clients[client].binary += 1
            self._tell(events.ClientSentBinary(client))
        else:
            self._tell(events.ClientAccessEnded(client, "revoked"))

    def _leave(self, client: ClientId) -> None:
        voice = self.voices.pop(client)
        self.strangers += voice.own[-4:]
        del self.strangers[:-30], self.oracle.clients[client]
        self.lagging.discard(client)
        self._tell(events.ClientLeft(client))
        self.waiting = [
            event
            for event in self.waiting
            if not (isinstance(event, events.AnsweredOutside) and event.client == client)
        ]

    def _client_says(self, voice: Voice, text: str) -> None:
        try:
            said = text.encode()
        except UnicodeEncodeError:
            return
        if self.rng.random() < 0.1:
            self.strangers += [*voice.own[-2:], *(f"{voice.id}:{own}" for own in voice.own[-1:])]
            self.strangers += list(self.app_server.pending)[-1:]
            del self.strangers[:-30]
        seen = self.oracle.clients[voice.id]
        self.oracle.sends(seen, said)
        self._tell(events.ClientSent(voice.id, said), seen)
        if voice.id not in self.lagging:
            seen.may_be_refused = False

    def _app_server_says(self, text: str) -> None:
        said = text.replace("\n", " ").encode(errors="replace")
        self.app_server.has_said(parsed(said))
        if len(said) > IN_PIECES and isinstance(parsed(said), dict) and self.rng.random() < 0.2:
            long = LongLine(said[:IN_PIECES])
            long.add(said[IN_PIECES:])
            self._tell(events.UpstreamSentLong(long))
        elif not self._goes_on(said):
            self._tell(events.UpstreamSent(said))

    def _goes_on(self, said: bytes) -> bool:
        """Have the line taken as one of a run, as those are that are read at once."""
        handled, of_a_run = self.broker.handle_run([said], 0, self.now)
        for command in of_a_run:
            self._perform(command, None)
        return handled == 1

    # ── lives ─────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self.generation += 1
        self.starts_at, self.exits = None, False
        self.app_server.begin()
        self.oracle.is_up = True
        self._tell(events.UpstreamStarted(self.generation))

    def _exit(self) -> None:
        self.exits = self.oracle.is_up = False
        self.app_server.begin()
        self._tell(events.UpstreamExited("exited with status 1"))

    def _pass_time(self, seconds: float) -> None:
        """Let time pass, waking the broker whenever it wants to be woken."""
        end, idle = self.now + seconds, 0
        while self.broker.next_wakeup <= end and not self.over:
            before = self.broker.next_wakeup
            self.now = max(self.now, before) + idle * TICK
            self._tell(events.TimePassed())
            idle = 0 if self.broker.next_wakeup > before else idle + 1
            if idle >= 3:
                raise FaultError("the broker would be woken without end")
        self.now = max(self.now, end)

    # ── the core ──────────────────────────────────────────────────────────────────────────────

    def _tell(self, event: events.Event, by: Seen | None = None) -> None:
        self.latest.append(event)
        for command in self.broker.handle(event, self.now):
            self._perform(command, by)
        gone = [seen.id for seen in self.oracle.clients.values() if seen.closed]
        for client in gone:
            if client in self.voices:
                self._leave(client)

    def _perform(self, command: commands.Command, by: Seen | None) -> None:
        rng = self.rng
        match command:
            case commands.Publish(message, recipients):
                self.oracle.told(message, recipients)
            case commands.PublishRun(messages, recipients):
                for each in messages:
                    self.oracle.told(each, recipients)
            case commands.Forward():
                upstream = self.broker.state.scheduler.upstream
                self.app_server.receives(self.oracle.goes_up(command, upstream, by))
            case commands.Close(client):
                self.oracle.clients[client].closed = True
            case commands.AnswerOutside(client, origin, method):
                self.waiting.append(
                    events.AnsweredOutside(client, jsonrpc.result(origin, {}), method)
                )
            case commands.Resolve(case, paths):
                found = (ResolvedPath(path or "/home/someone/work") for path in paths)
                places = tuple(place if rng.random() < 0.95 else None for place in found)
                self.waiting.append(events.Resolved(case, places))
            case commands.ReportWhenDrained(client):
                self.waiting.append(events.ClientDrained(client))
            case commands.ReadJournal(client, until=until, case=case):
                self.waiting.append(events.JournalRead(client, (), until, case))
            case _:
                self._perform_on_app_server(command)

    def _perform_on_app_server(self, command: commands.Command) -> None:
        match command:
            case commands.StartUpstream(after):
                self.starts_at = self.now + after
            case commands.StopUpstream() | commands.KillUpstream():
                self.exits = True
            case commands.GiveUp():
                self.over = True

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        """Everything settles: answered, or lost with the app-server. Then all leave."""
        if self.rng.random() < 0.5:
            self._settle(answers=True)
        self._settle(answers=False)
        self._settle(answers=True)
        if self.over:
            return
        self.oracle.all_answered()
        for client in list(self.voices):
            self._leave(client)
        self._settle(answers=True)
        self._nothing_is_left()

    def _settle(self, *, answers: bool) -> None:
        for _ in range(6):
            while self.waiting:
                self._tell(self.waiting.pop(0))
            if answers:
                self._answer_all()
            elif self.oracle.is_up:
                self._exit()
            self._pass_time(IN_THE_END / 6)
        if answers:
            self._answer_all()

    def _answer_all(self) -> None:
        for _ in range(200):
            if self.exits and self.oracle.is_up:
                self._exit()
            if not self.oracle.is_up and self.starts_at is not None:
                self._pass_time(max(0.0, self.starts_at - self.now))
                self._start()
            while self.waiting:
                self._tell(self.waiting.pop(0))
            for wire in list(self.app_server.pending):
                if wire in self.app_server.pending:
                    self._app_server_says(self.app_server.answers(wire))
            if not (self.app_server.pending or self.waiting):
                return
            self._pass_time(0.1)

    def _nothing_is_left(self) -> None:
        if too_much := left_over(sizes(self.broker), self.empty):
            raise FaultError(too_much)


def played(seed: int, number: int, corpus: Corpus, lines: int = LINES) -> None:
    """Play one round; raises `FaultError`, which tells how to have it again."""
    round_ = Round(random.Random(f"{seed}/{number}"), corpus)
    try:
        round_.play(lines)
    except Exception as error:
        latest = "\n".join(f"  {event!r:.400}" for event in round_.latest)
        again = f"make fuzz SEED={seed} ROUND={number}"
        raise FaultError(f"{error!r}\nthe last events:\n{latest}\nonce more: {again}") from error
