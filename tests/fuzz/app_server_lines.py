"""What the app-server says: answers, recorded turns, samples by the schema, and nonsense.

It keeps little: what it is asked, and the ids of clients' things that it has seen. Where the real
one would be strict it answers as if all were well, or not: the broker has to bear both.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from mux.core.protocol.methods import NOTIFICATIONS
from mux.core.protocol.rules import Audience
from tests.core.stories import INITIALIZED
from tests.fuzz.corpus import Corpus, as_message
from tests.fuzz.mutation import ID_NAMED, mutated, written
from tests.fuzz.oracle import FIRST_SERVER_ID, TOKEN

Json = dict[str, Any]

HOST: Final[Json] = {"config": {"approval_policy": "on-request", "sandbox_mode": "workspace-write"}}
RUN_WITH: Final[Json] = {
    "approvalPolicy": "on-request",
    "sandbox": {"type": "workspaceWrite", "writableRoots": [], "networkAccess": False},
    "cwd": "/home/someone/work",
}
ERRORS: Final = ((-32600, "no"), (-32601, "unknown"), (-32001, "Server overloaded; retry later."))
OWNED: Final = {
    method: rule.own_id for method, rule in NOTIFICATIONS.items() if rule.audience is Audience.OWNER
}
UNSEEN: Final = ("thread/novel/changed", "novel/progress", "fs/novel/changed")
SETTINGS: Final = frozenset({"thread/settings/updated"})
"""Samples that say that a thread has no sandbox, in which then everybody may run it."""
REMEMBERED: Final = 40
LATELY: Final = 5
"""Answers behind which it may still name the request."""
REQUESTS_AT_ONCE: Final = 30


@attrs.define(eq=False, repr=False)
class AppServer:
    """One app-server process after another. ``pending``: what it is asked, by wire id.

    ``wires``: ids of clients' things as they stand here. ``asked``: its own requests that nobody
    has answered. ``owner``: whose a request is, by wire id. ``said``: its last lines, of which some
    come twice.
    """

    rng: random.Random
    corpus: Corpus
    threads: list[str]
    asked: dict[Any, str]
    owner: dict[int, int | None]
    pending: dict[int, Json] = attrs.field(factory=dict)
    past: list[int] = attrs.field(factory=list)
    wires: list[str] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)
    places: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    serial: int = 0

    def begin(self) -> None:
        """A new process, which knows nothing."""
        for kept in (self.pending, self.past, self.wires, self.said, self.asked):
            kept.clear()

    def receives(self, message: Json) -> None:
        """One line of the broker's."""
        if "method" in message and "id" in message:
            self.pending[message["id"]] = message
            self._note(message.get("params"))

    def _note(self, value: Any) -> None:
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                self._note(each)
        elif isinstance(value, str) and f":{TOKEN}" in value:
            self.wires.append(value)
            del self.wires[:-REMEMBERED]

    # ── what it says ──────────────────────────────────────────────────────────────────────────

    def says(self) -> str:
        """The next line."""
        rng = self.rng
        kind = rng.random()
        if self.pending and kind < 0.4:
            text = self.answers(rng.choice(list(self.pending)), anyhow=rng.random() < 0.1)
        elif self.said and kind < 0.43:
            return rng.choice(self.said)
        else:
            message = self._message(kind)
            if rng.random() < 0.12:
                message = mutated(rng, message, [])
            text = written(message)
        if rng.random() < 0.01:
            text = text[: rng.randrange(len(text) + 1)]
        self.said.append(text)
        del self.said[:-8]
        return text

    def has_said(self, message: Any) -> None:
        """Keep what was asked, however it was written."""
        if isinstance(message, dict) and "id" in message and isinstance(message.get("method"), str):
            self.asked[key_of(message["id"])] = message["method"]

    def _message(self, kind: float) -> Json:
        rng = self.rng
        if kind < 0.75 and self.threads:
            return self._recorded(rng.choice(self.threads[-6:]))
        if kind < 0.85:
            return self._of_a_client()
        if kind < 0.9 and len(self.asked) < REQUESTS_AT_ONCE:
            return self._request()
        if kind < 0.93:
            ids = [*self.asked, FIRST_SERVER_ID + rng.randrange(self.serial + 2)]
            params = {"threadId": self._thread(), "requestId": rng.choice(ids)}
            return {"method": "serverRequest/resolved", "params": params}
        method = rng.choice([each for each in self.corpus.notifications if each not in SETTINGS])
        return {"method": method, "params": self._params(self.corpus.notifications[method])}

    def _thread(self) -> str:
        return self.rng.choice(self.threads) if self.threads else "nowhere"

    def _params(self, fields: Json) -> Json:
        params = {name: sample for name, sample in fields.items() if self.rng.random() < 0.8}
        if "threadId" in fields:
            params["threadId"] = self._thread()
        return params

    def _recorded(self, thread: str) -> Json:
        rng, turns = self.rng, self.corpus.recorded
        turn, at = self.places.get(thread, (rng.randrange(len(turns)), 0))
        text = turns[turn][at]
        at += rng.choice((1, 1, 1, 1, 0, 2, -1))
        self.places[thread] = (turn, at) if 0 <= at < len(turns[turn]) else (turn - 1, 0)
        message = as_message(text, thread)
        if "id" in message:
            self.serial += 1
            message["id"] = FIRST_SERVER_ID + self.serial
        if message["method"] == "serverRequest/resolved" and self.asked:
            message["params"]["requestId"] = rng.choice(list(self.asked))
        return message

    def _of_a_client(self) -> Json:
        """What names a thing of a client's, or a request."""
        rng = self.rng
        method = rng.choice([*OWNED, "thread/search/partial", *UNSEEN])
        names = [OWNED[method]] if method in OWNED else ["requestId", "novelWatchId", "processId"]
        wires = [*self.wires, "999999:gone", "x", ":", "1:"]
        requests = [*self.pending, *self.past, -1, 10**15]
        params: Json = {"delta": "x"}
        for name in names[: rng.randrange(1, 4)]:
            params[name] = rng.choice(requests if name == "requestId" else wires)
        if rng.random() < 0.3:
            params["threadId"] = self._thread()
        if method in UNSEEN and rng.random() < 0.3:
            params = {"inner": [params]}
        return {"method": method, "params": params}

    def _request(self) -> Json:
        rng = self.rng
        self.serial += 1
        method = rng.choice([*self.corpus.server_requests, "item/novel/ask", "novel/ask"])
        params = self._params(self.corpus.server_requests.get(method, {"threadId": ""}))
        if method == "item/novel/ask" and self.wires and rng.random() < 0.5:
            params["processId"] = rng.choice(self.wires)
        return {"method": method, "id": FIRST_SERVER_ID + self.serial, "params": params}

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    def answers(self, wire: int, *, anyhow: bool = False) -> str:
        """The answer to one request. ``anyhow``: of any shape, but under its id."""
        rng, asked = self.rng, self.pending.pop(wire)
        if self.owner.get(wire) is not None:
            self.past.append(wire)
            del self.past[:-LATELY]
        if asked["method"] == "initialize":
            return written({"id": wire, "result": INITIALIZED})
        if rng.random() < 0.12:
            code, text = rng.choice(ERRORS)
            quoted = [name for name in _own_ids(asked.get("params")) if rng.random() < 0.8]
            if code == -32001:
                self.pending[wire] = asked  # it may come again; or be answered for all that
            return written(
                {"error": {"code": code, "message": " ".join([text, *quoted])}, "id": wire}
            )
        answer: Json = {"id": wire, "result": self._result(asked)}
        if anyhow:
            answer = mutated(rng, {"result": answer["result"]}, []) | {"id": wire}
        return written(answer)

    def _result(self, asked: Json) -> Any:
        rng, method, params = self.rng, asked["method"], asked.get("params")
        named = params.get("threadId") if isinstance(params, dict) else None
        if method in (
            "thread/start",
            "thread/fork",
            "thread/resume",
            "review/start",
            "thread/read",
        ):
            known = method in ("thread/resume", "thread/read") and isinstance(named, str)
            thread = str(named) if known else self._new_thread()
            result = {
                "thread": self.corpus.started["thread"]
                | {"id": thread, "ephemeral": rng.random() < 0.2, "turns": []}
            }
            if method == "review/start":
                return result | {"turn": _turn(rng), "reviewThreadId": thread}
            return self.corpus.started | RUN_WITH | result
        if method == "config/read":
            return HOST
        if method in ("turn/start", "turn/steer"):
            return {"turn": _turn(rng)}
        if method == "thread/unsubscribe":
            return {"status": rng.choice(("unsubscribed", "notSubscribed", "notLoaded"))}
        return rng.choice(({}, {}, {"data": []}, None, {"n": 1}))

    def _new_thread(self) -> str:
        self.serial += 1
        thread = f"01a20643-3b3a-7923-a45b-{self.serial:012x}"
        self.threads.append(thread)
        del self.threads[:-REMEMBERED]
        return thread


def key_of(id: Any) -> Any:
    """An id, or what stands for it where it is nothing that could be a key."""
    return id if isinstance(id, str | int) else repr(id)


def _turn(rng: random.Random) -> Json:
    return {"id": f"turn-{rng.randrange(10**6)}", "status": "inProgress", "items": []}


def _own_ids(params: Any) -> list[str]:
    """Ids of the client's own that natively stand in an error."""
    if not isinstance(params, dict):
        return []
    named = [value for name, value in params.items() if ID_NAMED.search(name)]
    return [value for value in named if isinstance(value, str) and f":{TOKEN}" in value][:1]
