"""Record what each of the demo's two clients saw, draw it side by side, and check it.

No sockets and no clock: each message comes with the moment of its arrival.

Used by ``run``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any, Final

import attrs
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

APPROVAL: Final = "item/commandExecution/requestApproval"
DELTA: Final = "item/agentMessage/delta"

WIDTH: Final = 100
"""Columns of the picture: two readable halves, and no wider than a README shows."""

DIM, SAID, ASKED, DECIDED, RAN = "dim", "bold", "yellow", "green", "cyan"

NOT_SEEN: Final = "·"


@attrs.define(eq=False, repr=False)
class Line:
    """A line of a client's half of the picture."""

    at: float
    """When the line began, in seconds."""
    text: str
    style: str = ""
    """A rich style."""
    growing: bool = False
    """More text may be appended."""


@attrs.define(eq=False, repr=False)
class Seen:
    """The record of one client: the messages that it got and its own actions."""

    name: str
    transport: str
    lines: dict[Hashable, Line] = attrs.field(factory=dict)
    streamed: dict[str, str] = attrs.field(factory=dict)
    """The joined deltas, by item."""
    deltas: Counter[str] = attrs.field(factory=Counter)
    """The number of deltas, by turn."""
    agent: dict[str, list[Json]] = attrs.field(factory=dict)
    """The agent's completed messages, by turn."""
    commands: list[Json] = attrs.field(factory=list)
    turns: dict[str, str] = attrs.field(factory=dict)
    """The status with which each turn completed."""
    offered: dict[int | str, float] = attrs.field(factory=dict)
    """When each approval was offered, by its id."""
    resolved: dict[int | str, float] = attrs.field(factory=dict)
    """When each approval was resolved, by its id."""
    answered: list[int | str] = attrs.field(factory=list)
    """Ids of the approvals that this client answered."""
    asked: list[str] = attrs.field(factory=list)
    """The words of the turns that this client started while the other was there."""

    def did(self, text: str, at: float) -> None:
        """Record an action of the client itself."""
        self.lines["did", self.name, text] = Line(at, text, DIM)

    def asks(self, words: str) -> None:
        """Record that the client is about to start a turn that both see."""
        self.asked.append(words)

    def answers(self, id: int | str, decision: str, at: float) -> None:
        """Record that the client answers an approval."""
        self.answered.append(id)
        self.lines["answer", id] = Line(at, f"→ answers: {decision}", DECIDED)

    def record(self, message: Json, at: float) -> None:
        """Record a message from the broker."""
        params = message.get("params") or {}
        match message.get("method"):
            case "item/agentMessage/delta":
                self._delta(params["turnId"], params["itemId"], params["delta"], at)
            case "item/started" if params["item"]["type"] == "userMessage":
                self._user(params["item"], at)
            case "item/completed":
                self._completed(params["turnId"], params["item"], at)
            case "item/commandExecution/requestApproval":
                self.offered[message["id"]] = at
                text = f"? may it run this?\n  {shown_command(params.get('command'))}"
                self.lines["asked", message["id"]] = Line(at, text, ASKED)
            case "serverRequest/resolved":
                self._resolved(params["requestId"], at)
            case "turn/completed":
                turn = params["turn"]
                self.turns[turn["id"]] = turn["status"]
                self.lines["turn", turn["id"]] = Line(at, f"turn {turn['status']}", DIM)

    def _delta(self, turn: str, item: str, delta: str, at: float) -> None:
        self.deltas[turn] += 1
        self.streamed[item] = self.streamed.get(item, "") + delta
        line = self.lines.setdefault(("item", item), Line(at, "", growing=True))
        line.text = f"• {self.streamed[item]}"

    def _user(self, item: Json, at: float) -> None:
        words = "".join(part.get("text", "") for part in item["content"])
        here = " ← asked here" if words in self.asked else ""
        self.lines["item", item["id"]] = Line(at, f"› {words}{here}", SAID)

    def _completed(self, turn: str, item: Json, at: float) -> None:
        if item["type"] == "agentMessage":
            self.agent.setdefault(turn, []).append(item)
            line = self.lines.setdefault(("item", item["id"]), Line(at, f"• {item['text']}"))
            line.growing = False
        elif item["type"] == "commandExecution":
            self.commands.append(item)
            output = (item.get("aggregatedOutput") or "").strip()
            text = f"$ {shown_command(item['command'])}\n  {output}\n  exit {item.get('exitCode')}"
            self.lines["item", item["id"]] = Line(at, text, RAN)

    def _resolved(self, id: int | str, at: float) -> None:
        self.resolved[id] = at
        actor = "here" if id in self.answered else "elsewhere, prompt gone"
        self.lines["resolved", id] = Line(at, f"✓ decided {actor}", DECIDED)


def shown_command(command: str | None) -> str:
    """Return the command without the login shell that Codex wraps around it."""
    shell, flag, inner = (command or "?").partition(" -lc ")
    if not flag or " " in shell:
        return command or "?"
    quote = inner[:1]
    return inner[1:-1] if quote in "\"'" and quote == inner[-1:] else inner


# -- the picture -----------------------------------------------------------------------------------


def picture(first: Seen, second: Seen, *, last: int | None = None) -> RenderableType:
    """Draw both halves side by side, the same event in the same row; ``last`` limits the rows."""
    table = Table(box=box.ROUNDED, show_lines=False, pad_edge=True, padding=(0, 1), expand=True)
    for seen in (first, second):
        table.add_column("s", justify="right", style=DIM, no_wrap=True)
        table.add_column(f"{seen.name} ({seen.transport})", ratio=1, overflow="fold")
    rows = _rows(first, second)
    for key in rows if last is None else rows[-last:]:
        table.add_row(*_half(first, key), *_half(second, key))
    return table


def _rows(first: Seen, second: Seen) -> list[Hashable]:
    """Return the keys of all events, in the order in which either client first saw them."""
    began: dict[Hashable, float] = {}
    for seen in (first, second):
        for key, line in seen.lines.items():
            began[key] = min(line.at, began.get(key, line.at))
    return sorted(began, key=began.__getitem__)


def _half(seen: Seen, key: Hashable) -> tuple[Text, Text]:
    line = seen.lines.get(key)
    if line is None:
        return Text(), Text(NOT_SEEN, style=DIM)
    text = line.text + ("▌" if line.growing else "")
    return Text(f"{line.at:.2f}"), Text(text, style=line.style)


# -- the judgement ---------------------------------------------------------------------------------


@attrs.frozen
class Expected:
    """The events that both clients must have seen."""

    messages: dict[str, tuple[str, ...]]
    """The agent's messages, by turn."""
    note: str
    """The command's output."""


def missing(seen: Seen, expected: Expected) -> list[str]:
    """Return what one client should have seen and didn't, or saw otherwise."""
    faults = []
    for turn, texts in expected.messages.items():
        items = seen.agent.get(turn, [])
        streamed = tuple(seen.streamed.get(item["id"], "") for item in items)
        if tuple(item["text"] for item in items) != texts:
            faults.append(f"the agent's messages of turn {turn}")
        elif streamed != texts:
            faults.append(f"parts of the text while it streamed in turn {turn}: {streamed}")
        if seen.turns.get(turn) != "completed":
            faults.append(f"the completion of turn {turn}")
    if len(seen.offered) != 1:
        faults.append(f"the approval, once (it was offered {len(seen.offered)} times)")
    if seen.resolved.keys() != seen.offered.keys():
        faults.append("that the approval was decided")
    ran = [(item.get("exitCode"), item.get("aggregatedOutput")) for item in seen.commands]
    if ran != [(0, expected.note)]:
        faults.append(f"the command's only run and its output (it saw {ran})")
    return [f"{seen.name} didn't see {each}" for each in faults]


def summary(first: Seen, second: Seen, expected: Expected, facts: Iterable[str]) -> Group:
    """Return the lines below a picture in which nothing is missing.

    The second client has answered the approval.
    """
    (request,) = second.answered
    answered = second.lines["answer", request].at
    took = 1000 * (max(first.resolved[request], second.resolved[request]) - answered)
    deltas = [sum(seen.deltas[turn] for turn in expected.messages) for seen in (first, second)]
    lines = [
        f"Shared turns: {deltas[0]} deltas to the {first.name}, {deltas[1]} to the {second.name};"
        " the texts are equal.",
        f"Approval: offered to both, answered by the {second.name}, gone from both {took:.0f} ms"
        " later. The command ran once.",
        *facts,
    ]
    return Group(*map(Text, lines))


def without_web_fonts(svg: str) -> str:
    """Remove the addresses of fonts, so that a viewer of the picture makes no network request."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
