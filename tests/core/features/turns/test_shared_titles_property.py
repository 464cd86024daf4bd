"""Whatever happens to title turns: each that was asked for has one answer, and at most one end."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.envelope.jsonrpc import DEADLINE_PASSED
from tests.core.features.turns.test_shared_titles import ask, begin, run
from tests.core.stories import Json, Peer, Story

STATUSES = ("completed", "failed", "interrupted")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3)),
        st.tuples(st.just("ends"), st.sampled_from(STATUSES)),
        st.tuples(st.just("refused"), st.just(0)),
        st.tuples(st.just("unsubscribes"), st.integers(0, 3)),
        st.tuples(st.just("leaves"), st.integers(0, 3)),
        st.tuples(st.just("waits"), st.sampled_from((1, 20, 70))),
    ),
    max_size=14,
)


class Titled:
    """Four TUIs on one thread, and the app-server's turns that aren't over."""

    def __init__(self) -> None:
        self.story = Story.begun()
        self.tuis: dict[int, Peer] = {}
        self.asked: dict[int, list[tuple[int, str]]] = {n: [] for n in range(4)}
        self.heard: dict[int, list[Json]] = {n: [] for n in range(4)}
        self.pending: list[Json] = []
        self.turns = itertools.count()
        for n in range(4):
            self.tuis[n] = self.story.peer("codex-tui")
            self.story.follows(self.tuis[n])
        self.story.written()

    def look(self) -> None:
        """Take in what was written and said; everything but turns is answered at once."""
        for written in self.story.written():
            if written.get("method") == "turn/start":
                self.pending.append(written)
            elif "id" in written:
                self.story.answers(written, {"status": "unsubscribed"})
        for n, tui in self.tuis.items():
            self.heard[n] += tui.heard()

    def step(self, what: str, about: int | str) -> None:
        tui = self.tuis.get(int(about)) if what in ("ask", "unsubscribes", "leaves") else None
        match what:
            case "ask" if tui is not None:
                n, thread = int(about), f"title{next(self.turns)}"
                begin(self.story, tui, thread)
                self.asked[n].append((ask(tui, thread), thread))
            case "unsubscribes" if tui is not None and self.asked[int(about)]:
                tui.asks("thread/unsubscribe", {"threadId": self.asked[int(about)][-1][1]})
            case "leaves" if tui is not None:
                del self.tuis[int(about)]
                tui.leaves()
            case "ends" if self.pending:
                asked = self.pending.pop(0)
                turn = f"turn{next(self.turns)}"
                run(self.story, asked["params"]["threadId"], turn, str(about), asked)
            case "refused" if self.pending:
                self.story.fails(self.pending.pop(0))
            case "waits":
                self.story.waits(float(about))
            case _:
                pass
        self.look()


@given(steps)
def test_each_has_one_answer_and_one_end(wanted: list[tuple[str, int | str]]) -> None:
    here = Titled()
    for what, about in wanted:
        here.step(what, about)
    while here.pending:
        here.step("ends", "completed")
    for n in here.tuis:
        for id, thread in here.asked[n]:
            answers = [each for each in here.heard[n] if each.get("id") == id]
            assert len(answers) == 1, (n, id, thread)
            of_it = [
                each["params"]["turn"]["status"]
                for each in here.heard[n]
                if each.get("method") == "turn/completed" and each["params"]["threadId"] == thread
            ]
            assert len(of_it) <= 1
            code = answers[0].get("error", {}).get("code")
            if code not in (None, DEADLINE_PASSED):  # of one that isn't answered the end may come
                assert of_it == []
