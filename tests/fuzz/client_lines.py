"""What clients say: requests by the schema, answers to what they were offered, and nonsense.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from mux.core.policy.principal import ClientId
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from tests.fuzz.corpus import Corpus
from tests.fuzz.mutation import ID_NAMED, mutated, rewritten, written
from tests.fuzz.oracle import FIRST_WIRE, TOKEN

Json = dict[str, Any]

SCOPE_SETS: Final[tuple[frozenset[Scope], ...]] = (
    ALL, ALL, ALL - {"admin"}, frozenset({"observe"}), frozenset({"approve"}),
    frozenset({"drive"}), frozenset({"admin"}), frozenset({"observe", "drive"}),
    frozenset({"observe", "approve"}), frozenset({"admin", "drive"}),
)  # fmt: skip

OFTEN: Final = (
    "thread/start", "thread/start", "thread/resume", "thread/resume", "thread/resume", "turn/start",
    "turn/start", "turn/start", "turn/interrupt", "thread/unsubscribe", "thread/fork", "fs/watch",
    "fs/unwatch", "command/exec", "command/exec/terminate", "process/spawn", "process/kill",
    "fuzzyFileSearch/sessionStart", "fuzzyFileSearch/sessionStop", "mcpServer/event/stream/start",
    "thread/search/stream", "thread/search/stream/cancel", "thread/sample", "thread/sample/cancel",
    "thread/settings/update", "thread/list", "thread/read", "mux/replay", "mux/focus",
    "mux/approvals/list", "mux/approvals/answer", "mux/queue/list", "review/start", "initialize",
)  # fmt: skip
UNKNOWN: Final = (
    "made/up", "thread/novel/start", "thread/novel/stop", "mux/unknown", "", "rpc.discover",
    "Thread/Start", "thread/start ", "fs/novel/watch",
)  # fmt: skip
UNKNOWN_FIELDS: Final = (
    "requestId", "novelRequestId", "requestIds", "processId", "watchId", "shellProcessHandle",
    "subscriptionId", "cancellationToken", "sessionId", "searchIds", "threadId", "inner", "n",
)  # fmt: skip
HARMLESS: Final[Json] = {
    "approvalPolicy": "untrusted",
    "sandbox": "read-only",
    "sandboxPolicy": {"type": "readOnly"},
    "approvalsReviewer": "user",
    "cwd": "/home/someone/work",
    "environments": [{"environmentId": "local", "cwd": "/home/someone/work"}],
}
"""In the place of samples of the schema that few may send."""
LOOSE: Final = ("permissions", "config", "path", "history", "experimentalPredictionMode")


@attrs.define(eq=False)
class Voice:
    """One client's words. ``threads``: those of the app-server; ``strangers``: ids that aren't its.

    ``own``: the ids that it has used lately. ``offers``: what it was asked, by the broker's ids.
    """

    id: ClientId
    rng: random.Random
    corpus: Corpus
    threads: list[str]
    strangers: list[Any]
    offers: list[int]
    own: list[str] = attrs.field(factory=list)
    count: int = 0

    def initialize(self) -> str:
        """A good one, as a client begins with."""
        rng = self.rng
        capabilities: Json = {"experimentalApi": rng.random() < 0.8}
        if rng.random() < 0.3:
            capabilities["extensions"] = {"appmux": {"relay": rng.random() < 0.3}}
        if rng.random() < 0.2:
            capabilities["optOutNotificationMethods"] = ["item/agentMessage/delta"]
        params = {"clientInfo": {"name": "fuzz", "version": "1"}, "capabilities": capabilities}
        return written({"id": self._id(), "method": "initialize", "params": params})

    def says(self, *, plainly: bool) -> str:
        """The next message. ``plainly``: as a good client would write it."""
        rng = self.rng
        kind = rng.random()
        if self.offers and kind < 0.12:
            message = self._answer(rng.choice(self.offers[-4:]))
        elif kind < 0.15:
            unknown = rng.choice([*self.offers, *self.strangers, 0, -1, "x", FIRST_WIRE])
            message = self._answer(unknown)
        elif kind < 0.18:
            methods = ("initialized", "mux/focus", "thread/list", "made/up")
            message = {"method": rng.choice(methods), "params": self._params("mux/focus")}
        else:
            message = self._request()
        if plainly or rng.random() < 0.6:
            return written(message)
        text = written(mutated(rng, message, self.strangers))
        return rewritten(rng, text) if rng.random() < 0.12 else text

    def _answer(self, id: Any) -> Json:
        rng = self.rng
        if rng.random() < 0.2:
            return {"id": id, "error": {"code": -32601, "message": "no"}}
        results: tuple[Any, ...] = (
            {"decision": "accept"},
            {"decision": "decline"},
            {"answers": {}},
            {},
            [1],
            None,
        )
        return {"id": id, "result": rng.choice(results)}

    def _request(self) -> Json:
        rng = self.rng
        if rng.random() < 0.6:
            method = rng.choice(OFTEN)
        else:
            method = rng.choice([*self.corpus.requests, *UNKNOWN])
        message = {"id": self._id(), "method": method, "params": self._params(method)}
        if rng.random() < 0.05:
            message["jsonrpc"] = "2.0"
        return message

    def _id(self) -> Any:
        """Mostly a text that no other client uses; or a number that all use."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.6:
            return self._new_token()
        if kind < 0.7 and self.own:
            return rng.choice(self.own)
        return rng.choice((rng.randrange(20), rng.randrange(20), str(rng.randrange(9)), -(2**63)))

    def _new_token(self) -> str:
        self.count += 1
        token = f"{TOKEN}{self.id}q{self.count}"
        self.own.append(token)
        del self.own[:-12]
        return token

    def _params(self, method: str) -> Json:
        rng = self.rng
        fields = self.corpus.requests.get(method)
        if fields is None:
            fields = dict.fromkeys(rng.sample(UNKNOWN_FIELDS, rng.randrange(5)), "x")
        params: Json = {}
        for name, sample in fields.items():
            if name == "threadId" or ID_NAMED.search(name):
                params[name] = self._named(name)
            elif rng.random() < 0.3 and (name not in LOOSE or rng.random() < 0.1):
                params[name] = HARMLESS.get(name, sample) if rng.random() < 0.9 else sample
        if method == "turn/start":
            params["input"] = [{"type": "text", "text": "go on"}]
            if rng.random() < 0.2:
                params["ifBusy"] = rng.choice(("queue", "reject", "steer"))
        if "inner" in params:
            params["inner"] = [{rng.choice(UNKNOWN_FIELDS): self._named("processId")}]
        return params

    def _named(self, name: str) -> Any:
        rng = self.rng
        if name == "threadId":
            return rng.choice(self.threads) if rng.random() < 0.95 else "nowhere"
        if rng.random() < 0.15 and self.strangers:
            return rng.choice(self.strangers)
        id = rng.choice(self.own) if self.own and rng.random() < 0.6 else self._new_token()
        return [id] if name.endswith("s") else id
