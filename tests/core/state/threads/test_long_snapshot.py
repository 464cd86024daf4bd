"""A long snapshot, brought up to date in its pieces, is what it would be if it were read whole."""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mux.core.protocol.envelope import jsonrpc, long_line
from mux.core.protocol.envelope.jsonrpc import ItemParams
from mux.core.protocol.envelope.long_line import read_snapshot
from mux.core.protocol.envelope.rope import Rope
from mux.core.state.threads.long_snapshot import LongAnswer
from mux.core.state.turns import running_turn
from mux.core.state.turns.running_turn import RunningTurn
from tests.core.stories import Json, dumps, in_pieces

WIRE = 7
TRAPS = (
    "plain",
    "é\\n",
    '"]},"model":"x',
    '","rootTurnId":"t1","items":[',
    '{"id":"t1","rootTurnId":"t1"}',
    '],"itemsView":"full","status":"inProgress"',
    "\\",
    '\\"',
)
"""Words of people and programs that look like the marks."""

TURN_IDS = ("t1", "t2", "t3", "t4", "t5")


@pytest.fixture(autouse=True)
def _small_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_line, "END_BYTES", 2048)


def turn(id: str, items: list[Json], status: str = "completed", view: str = "full") -> Json:
    """A turn as the app-server writes it."""
    rest: Json = {"status": status, "error": None, "startedAt": 1, "completedAt": 2}
    return {"id": id, "rootTurnId": id, "items": items, "itemsView": view, **rest}


def answer(turns: list[Json], status: str = "idle", page: Json | None = None) -> Json:
    """The answer to a ``thread/resume``, in the order of its fields."""
    thread: Json = {"id": "T", "preview": "words", "status": {"type": status}, "cwd": "/w"}
    if status == "active":
        thread["status"]["activeFlags"] = []
    thread["turns"] = turns
    rest: Json = {"model": "m", "cwd": "/w", "sandbox": {"roots": []}, "initialTurnsPage": page}
    return {"id": WIRE, "result": {"thread": thread, **rest}}


@attrs.frozen
class Ran:
    """What the broker knows: the state after these notifications."""

    lines: tuple[Json, ...]
    waited: bool = False

    def running(self) -> RunningTurn:
        """The state."""
        known = RunningTurn()
        for line in self.lines:
            method, params, text = line["method"], line["params"], dumps(line)
            if method == "turn/completed":
                ended = known.turn
                shown = known.shown_ended(text) if ended else None
                known.ended = (ended, shown) if ended and shown and self.waited else None
            known.apply(method, ItemParams(threadId="T", itemId=params.get("itemId")), text)
        return known


def both_ways(
    told: Json, ran: Ran, *, pieces: int, status: bytes | None, turns: bool
) -> tuple[bytes | None, bytes]:
    """The answer up to date: in its pieces (None if that can't be), and read whole."""
    line = dumps(told)
    long = in_pieces(line, pieces)
    edited = LongAnswer(long, read_snapshot(long)).up_to_date(ran.running(), status, turns=turns)
    fields = jsonrpc.read_fields(line) or {}
    known = running_turn.up_to_date(fields["result"], ran.running(), status, turns=turns)
    whole = jsonrpc.with_id(jsonrpc.write(fields | {"result": known}), b"%d" % WIRE, b'"mine"')
    return edited.with_id(b'"mine"').whole() if edited is not None else None, whole


# --- Whatever the turns ---------------------------------------------------------------------------

texts = st.sampled_from(TRAPS)
items = st.lists(
    st.one_of(
        texts.map(lambda text: {"type": "agentMessage", "id": "m", "text": text}),
        st.tuples(st.sampled_from(["c1", "c2"]), texts).map(
            lambda both: {
                "type": "commandExecution", "id": both[0], "status": "inProgress", "out": both[1]
            }
        ),
        st.lists(st.sampled_from(TURN_IDS), max_size=2).map(
            lambda ids: {
                "type": "mcp", "id": "n",
                "result": {"turns": [turn(id, [], "inProgress") for id in ids]},
            }
        ),
        st.just({"type": "odd", "id": "o", "of": {"x": []}, "model": "m"}),
    ),
    max_size=3,
)  # fmt: skip
statuses = st.sampled_from(["completed", "inProgress", "interrupted"])


@st.composite
def histories(draw: st.DrawFn) -> list[Json]:
    """Turns of a thread."""
    ids = draw(st.lists(st.sampled_from(TURN_IDS), unique=True, max_size=4))
    views = st.sampled_from(["full", "full", "full", "summary"])
    return [turn(id, draw(items), draw(statuses), draw(views)) for id in sorted(ids)]


def said(turn_id: str, done: list[str], goes_on: bool, left: bool) -> Iterator[Json]:
    """The notifications of a turn: begun, some items, perhaps its end; one may go on after it."""
    of = {"threadId": "T", "turnId": turn_id}
    shown = {"id": turn_id, "rootTurnId": turn_id, "items": [], "status": "inProgress"}
    yield {"method": "turn/started", "params": {"threadId": "T", "turn": shown}}
    if left:
        begun = {"type": "commandExecution", "id": "c1", "status": "inProgress"}
        yield {"method": "item/started", "params": {**of, "item": begun}}
    for text in done:
        item = {"type": "agentMessage", "id": f"d{text}", "text": text}
        yield {"method": "item/completed", "params": {**of, "item": item}}
    if not goes_on:
        ended = shown | {"status": "completed"}
        yield {"method": "turn/completed", "params": {"threadId": "T", "turn": ended}}
        if left:
            over = {"type": "commandExecution", "id": "c1", "status": "completed"}
            yield {"method": "item/completed", "params": {**of, "item": over}}


@st.composite
def knowledge(draw: st.DrawFn) -> Ran:
    """Some turns, of which the last may still run."""
    ids = draw(st.lists(st.sampled_from(TURN_IDS), unique=True, max_size=2))
    lines: list[Json] = []
    for place, id in enumerate(ids):
        last = place == len(ids) - 1
        goes_on = last and draw(st.booleans())
        lines += said(id, draw(st.lists(texts, max_size=2)), goes_on, draw(st.booleans()))
    return Ran(tuple(lines), draw(st.booleans()))


@attrs.frozen
class Way:
    """In which pieces it comes, and what is asked."""

    pieces: int
    whole_turn: int
    status: bytes | None
    turns: bool


ways = st.builds(
    Way,
    st.integers(1, 400),
    st.sampled_from([0, 200, 10_000]),
    st.sampled_from([None, b'{"type":"idle"}', b'{"type":"active","activeFlags":[]}']),
    st.booleans(),
)


@given(histories(), knowledge(), ways)
def test_in_pieces_it_is_what_it_would_be_read_whole(
    history: list[Json], ran: Ran, way: Way
) -> None:
    known = ran.running().known().keys()
    # Nobody can have written a turn's id before that began.
    assume(not known & nested(history) - {each["id"] for each in history})
    commands = [item["id"] for each in history for item in each["items"] if "out" in item]
    assume(len(set(commands)) == len(commands))  # as natively
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_line, "WHOLE_TURN_BYTES", way.whole_turn)
        edited, whole = both_ways(
            answer(history), ran, pieces=way.pieces, status=way.status, turns=way.turns
        )
    assert edited in (None, whole)


def nested(history: list[Json]) -> set[str]:
    """The ids of what looks like turns within items."""
    items = [item for each in history for item in each["items"] if item["type"] == "mcp"]
    return {each["id"] for item in items for each in item["result"]["turns"]}


# --- What mustn't be read whole -------------------------------------------------------------------

PLAIN = [turn(id, [{"type": "agentMessage", "id": "m", "text": t}]) for id, t in zip(
    TURN_IDS[:3], TRAPS[2:5], strict=True
)]  # fmt: skip


@pytest.mark.parametrize("whole_turn", [0, 10_000], ids=["long turns", "short turns"])
@pytest.mark.parametrize(
    ("history", "ran"),
    [
        (PLAIN, Ran(())),
        (PLAIN, Ran(tuple(said("t3", ["plain", '"]},"model":'], True, False)))),
        (PLAIN, Ran(tuple(said("t4", ["plain"], True, False)))),
        (PLAIN, Ran(tuple(said("t3", ["plain"], False, False)), waited=True)),
        ([*PLAIN, turn("t4", [], "inProgress")], Ran(tuple(said("t5", [], True, False)))),
    ],
    ids=["idle", "the last turn runs", "one began meanwhile", "one ended", "one ended long ago"],
)
def test_what_is_known_is_put_in_its_place(
    history: list[Json], ran: Ran, whole_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_line, "WHOLE_TURN_BYTES", whole_turn)
    status = b'{"type":"active","activeFlags":[]}'
    for pieces in (1, 7, 100, 100_000):
        told = answer(history)
        edited, whole = both_ways(told, ran, pieces=pieces, status=status, turns=True)
        assert edited == whole
        assert json.loads(whole)["result"]["thread"]["status"]["type"] == "active"


def test_an_item_that_outlived_its_turn_is_replaced_in_it() -> None:
    ran = Ran((*said("t2", [], False, True), *said("t4", [], True, False)))
    running = {"type": "commandExecution", "id": "c1", "status": "inProgress"}
    history = [turn("t1", []), turn("t2", [running]), turn("t3", []), turn("t4", [])]
    edited, whole = both_ways(answer(history), ran, pieces=50, status=None, turns=True)
    assert edited == whole
    assert json.loads(whole)["result"]["thread"]["turns"][1]["items"][0]["status"] == "completed"


@pytest.mark.parametrize(
    "other",
    [
        lambda told: told | {"result": dict(reversed(told["result"].items()))},
        lambda told: dict(reversed(told.items())),
        lambda told: told | {"result": told["result"] | {"model": 7}},
        lambda told: {"id": WIRE, "result": {"thread": told["result"]["thread"]}},
        lambda _: answer(PLAIN, page={"data": PLAIN, "nextCursor": None}),
        lambda _: answer([turn("t1", []), turn("t1", [])]),
    ],
)
def test_an_answer_of_another_shape_is_left_to_those_that_read_it_whole(other: object) -> None:
    told = other(answer(PLAIN))  # type: ignore[operator]
    long = in_pieces(dumps(told), 50)
    read = LongAnswer(long, read_snapshot(long))
    assert read.up_to_date(RunningTurn(), None, turns=True) is None


def test_turns_whose_fields_are_in_another_order_are_left_to_those_that_read_them_whole() -> None:
    history = [dict(sorted(each.items())) for each in PLAIN]
    ran = Ran(tuple(said("t3", ["plain"], True, False)))
    edited, _ = both_ways(answer(history), ran, pieces=50, status=None, turns=True)
    assert edited is None


# --- Work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [False, True])
def test_of_a_long_snapshot_only_its_ends_and_the_running_turn_are_read(
    runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long: bytes that are copied to be read don't grow with it."""
    copied: list[int] = []

    def counting(rope: Rope, start: int, stop: int) -> bytes:
        copied.append(min(stop, len(rope)) - start)
        return b"".join(rope.views(start, stop))

    def refusing(_: Rope) -> bytes:
        raise AssertionError("read whole")

    text = "x" * 5_000
    read: list[int] = []
    for count in (20, 200):
        history = [turn(f"t{n:05}", [{"type": "agentMessage", "text": text}]) for n in range(count)]
        ran = Ran(tuple(said(history[-1]["id"], ["plain"], True, False)) if runs else ())
        long = in_pieces(dumps(answer(history)), 4_096)
        with monkeypatch.context() as patch:
            patch.setattr(Rope, "text", counting)
            patch.setattr(Rope, "whole", refusing)
            copied.clear()
            edited = LongAnswer(long, read_snapshot(long)).up_to_date(
                ran.running(), b'{"type":"active","activeFlags":[]}', turns=True
            )
            assert edited is not None
            rope = edited.with_id(b"1")
            read.append(sum(copied))
        assert json.loads(rope.whole())["id"] == 1
    assert read[0] == read[1] < 16_000 + runs * 3 * 5_000
