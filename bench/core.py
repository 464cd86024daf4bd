"""The hot path without the machine around it: one delta of the app-server to N followers.

Run as ``python -m bench.core``. For each number of followers it prints, in a second:

    decide    ``Broker.handle`` alone: a line in, a ``Publish`` out
    owe       the same by ``Dispatcher.handle_lines``, many lines at once, as the pipe brings them:
              decided, framed, in every follower's outbox
    write     an outbox's writer, joining what is owed for a stream that drops it

And what a client's request and its answer take of the core, with clients attached, and with notices
that nobody has seen.

Hands to: whoever reads the table.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import attrs
import click
import msgspec
import trio
from rich.console import Console
from rich.table import Table

from mux.core.broker import Broker
from mux.core.commands import Forward
from mux.core.events import (
    ClientAttached,
    ClientSent,
    NoticesRestored,
    RecipientsChanged,
    UpstreamSent,
    UpstreamStarted,
)
from mux.core.limits import Limits
from mux.core.policy.notice import Recipient, RestoredNotice
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import ClientPort, Outbox
from tests.shells import idle_shells

THREAD: Final = "0199f3a1-5c1e-7d43-9a51-2f7c1de0b6aa"
TURN: Final = "0199f3a1-5c2b-7b02-8f6e-90a3e2d45c11"

# One delta as the app-server writes it, byte for byte but for the ids.
DELTA: Final = msgspec.json.encode(
    {
        "method": "item/agentMessage/delta",
        "params": {"threadId": THREAD, "turnId": TURN, "itemId": "msg_5", "delta": "word "},
        "emittedAtMs": 1795398334245,
    }
)

# What comes before the deltas: the broker keeps the text of running items for late joiners.
BEFORE: Final = tuple(
    msgspec.json.encode({"method": method, "params": {"threadId": THREAD, **params}})
    for method, params in (
        ("turn/started", {"turn": {"id": TURN, "status": "inProgress", "items": []}}),
        ("item/started", {"item": {"type": "agentMessage", "id": "msg_5"}, "turnId": TURN}),
    )
)

PRINCIPAL: Final = Principal("bench", "open")

# What one read of the app-server's pipe brings under load, and so what is owed at one time.
LINES_AT_ONCE: Final = 100
LINES: Final = [DELTA] * LINES_AT_ONCE

# --- A broker with followers ---------------------------------------------------------------------


def make_broker() -> Broker:
    """A broker whose app-server is ready, and nobody attached."""
    broker = Broker(Limits(), Introduction("bench", "0.1", False, False))
    (asked,) = _forwarded(broker, UpstreamStarted(1))
    hello = {
        "userAgent": "bench/0.163.0 (Debian 12.0.0; x86_64) unknown (bench; 0.1)",
        "codexHome": "/home/bench/.codex",
        "platformFamily": "unix",
        "platformOs": "linux",
    }
    broker.handle(UpstreamSent(msgspec.json.encode({"id": asked["id"], "result": hello})), 0.0)
    return broker


def follow(broker: Broker, client: int) -> None:
    """Let an attached client shake hands and resume ``THREAD``, whose turn begins then."""
    introduced = {"clientInfo": {"name": "follower", "title": None, "version": "0.1"}}
    _say(broker, client, {"id": 1, "method": "initialize", "params": introduced})
    resume = {"id": 2, "method": "thread/resume", "params": {"threadId": THREAD}}
    (asked,) = _say(broker, client, resume)
    answer = {"id": asked["id"], "result": {"thread": {"id": THREAD}}}
    for line in (msgspec.json.encode(answer), *BEFORE):
        broker.handle(UpstreamSent(line), 0.0)


def _say(broker: Broker, client: int, message: dict[str, Any]) -> list[dict[str, Any]]:
    return _forwarded(broker, ClientSent(client, msgspec.json.encode(message)))


def _forwarded(broker: Broker, event: Any) -> list[dict[str, Any]]:
    commands = broker.handle(event, 0.0)
    return [json.loads(command.line) for command in commands if isinstance(command, Forward)]


# --- What is measured ----------------------------------------------------------------------------


def decide(followers: int, lines: int) -> float:
    """Seconds that the core takes for ``lines`` deltas."""
    broker = make_broker()
    for client in range(1, followers + 1):
        broker.handle(ClientAttached(client, PRINCIPAL, "ws", "bench"), 0.0)
        follow(broker, client)
    began = time.perf_counter()
    for _ in range(lines):
        broker.handle(UpstreamSent(DELTA), 0.0)
    return time.perf_counter() - began


def owe(followers: int, lines: int) -> float:
    """Seconds that deciding, framing and appending to each outbox take."""
    return trio.run(_owe, followers, lines)


async def _owe(followers: int, lines: int) -> float:
    dispatcher = Dispatcher(make_broker())
    dispatcher.connect(idle_shells())  # the store has a thread of its own, and its own costs
    ports = [ClientPort(_outbox(), lambda _code, _reason: None) for _ in range(followers)]
    for port in ports:
        follow(dispatcher.broker, dispatcher.attach(port, PRINCIPAL, "ws", "bench"))
    spent = 0.0
    for _ in range(lines // LINES_AT_ONCE):
        for port in ports:
            port.outbox = _outbox()
        began = time.perf_counter()
        heard = 0
        while heard < LINES_AT_ONCE:  # it ends its step in time
            heard += dispatcher.handle_lines(LINES[heard:])
        spent += time.perf_counter() - began
        assert all(port.outbox.owed > LINES_AT_ONCE * len(DELTA) for port in ports)
    return spent


def write(followers: int, lines: int) -> float:
    """Seconds that the writers of so many outboxes take to join and send ``lines`` frames each."""
    return trio.run(_write, followers, lines)


async def _write(followers: int, lines: int) -> float:
    spent = 0.0
    for _ in range(lines // LINES_AT_ONCE):
        outboxes = [_outbox() for _ in range(followers)]
        for outbox in outboxes:
            for _ in range(LINES_AT_ONCE):
                outbox.append(DELTA)
            outbox.finish()
        sink = _Sink()
        began = time.perf_counter()
        for outbox in outboxes:
            await outbox.write_to(sink)
        spent += time.perf_counter() - began
        assert sink.taken == followers * LINES_AT_ONCE * len(DELTA)
    return spent


def _outbox() -> Outbox:
    return Outbox(float("inf"), lambda: None)


@attrs.define
class _Sink(trio.abc.SendStream):
    """Takes everything at once and keeps nothing."""

    taken: int = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.taken += len(data)

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


def ask(clients: int, unseen: int, times: int) -> float:
    """Seconds that so many requests take, with their answers, one after the other."""
    broker = make_broker()
    broker.handle(RecipientsChanged((Recipient("device:phone", "phone", ALL),)), 0.0)
    told = ("device:phone",)
    stand = (
        RestoredNotice(f"turn/{n}", "turn-completed", f"thread {n}", told) for n in range(unseen)
    )
    broker.handle(NoticesRestored((), tuple(stand)), 0.0)
    for client in range(1, clients + 1):
        broker.handle(ClientAttached(client, PRINCIPAL, "ws", "bench"), 0.0)
        follow(broker, client)
    asked = ClientSent(1, b'{"id":7,"method":"thread/loaded/list","params":{}}')
    began = time.perf_counter()
    for _ in range(times):
        (line,) = _forwarded(broker, asked)
        broker.handle(UpstreamSent(b'{"id":%d,"result":{"data":[]}}' % line["id"]), 0.0)
    return time.perf_counter() - began


# --- The tables ----------------------------------------------------------------------------------

MEASURED: Final[dict[str, Callable[[int, int], float]]] = {
    "decide": decide,
    "owe": owe,
    "write": write,
}


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--lines", default=50_000, show_default=True, help="Deltas for each measurement.")
@click.option("--followers", default="1,8,32", show_default=True, help="Numbers of them.")
@click.option("--requests", default=2_000, show_default=True, help="For each measurement.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; the quickest counts.")
def main(lines: int, followers: str, requests: int, repeat: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_deltas(lines, followers, repeat))
    console.print(_requests(requests, repeat))


def _requests(requests: int, repeat: int) -> Table:
    table = Table(caption="what a request takes of the core, in µs")
    for name in ("clients", "unseen notices", "µs"):
        table.add_column(name, justify="right")
    for clients, unseen in ((1, 0), (100, 0), (100, 20), (500, 0), (500, 256)):
        seconds = min(ask(clients, unseen, requests) for _ in range(repeat))
        table.add_row(f"{clients}", f"{unseen}", f"{seconds / requests * 1e6:,.1f}")
    return table


def _deltas(lines: int, followers: str, repeat: int) -> Table:
    table = Table(caption="deltas a second, and for all followers together")
    table.add_column("followers", justify="right")
    for name in MEASURED:
        table.add_column(name, justify="right")
        table.add_column("deliveries/s", justify="right")
    for number in map(int, followers.split(",")):
        row = [f"{number}"]
        for measured in MEASURED.values():
            rate = lines / min(measured(number, lines) for _ in range(repeat))
            row += [f"{rate:,.0f}", f"{rate * number:,.0f}"]
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
