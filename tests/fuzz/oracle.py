"""What must hold after every line, judged from the JSON alone: by Python's own parser, in which the
last of two equal keys counts, as it does in the app-server's.

Ids are told by how they are written. What clients choose begins with ``TOKEN`` and their number;
wire ids and the app-server's own are numbers of a size that nobody else uses. So any of them is
found wherever it stands.

Hands to: the fuzz of the core.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final

import attrs

from mux.core.commands import Forward
from mux.core.policy.principal import ClientId
from mux.core.policy.scopes import SCOPES
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.methods import REQUESTS, SERVER_REQUESTS, notification_rule
from mux.core.protocol.rules import Audience
from mux.core.protocol.scope import Scope
from mux.core.protocol.threads.thread_overrides import METHODS
from mux.core.state.requests.scheduler import BROKER, DEPARTED
from tests.fuzz.mutation import ID_NAMED

Json = dict[str, Any]
Id = tuple[type, Any]

TOKEN: Final = "zq"
_TOKEN = re.compile(rb"zq([0-9]+)q[0-9]+")
_TOKEN_AS_WIRE = re.compile(rb"[0-9]+:zq[0-9]+q[0-9]+")
FIRST_WIRE: Final = 42 * 10**11
FIRST_SERVER_ID: Final = 43 * 10**11
_BIG = re.compile(rb"4[23][0-9]{11}")


class FaultError(AssertionError):
    """Something that must hold doesn't."""


@attrs.define(eq=False)
class Seen:
    """One client, as its messages show it. ``owed``: answers, by id; ``said``: what it ever wrote.

    ``client_requests``: the id of its request that is being handled; ``names``: the id in what is
    none.
    """

    id: ClientId
    scopes: frozenset[Scope]
    owed: Counter[Id] = attrs.field(factory=Counter)
    said: set[bytes] = attrs.field(factory=set)
    offers: list[int] = attrs.field(factory=list)
    asking: Id | None = None
    names: Any = None
    may_be_refused: bool = False
    binary: int = 0
    """Binary messages that it sent. Each is refused under no id, perhaps when it has caught up."""
    closed: bool = False


def id_of(message: Any) -> Id | None:
    """The id of a request, if the message is one to whoever reads it generously."""
    if not (isinstance(message, dict) and "method" in message and "id" in message):
        return None
    value = message["id"]
    return (type(value), value) if isinstance(value, str | int) else (str, repr(value))


def parsed(text: bytes | str) -> Any:
    """The JSON value of a text; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _require(holds: object, why: str, about: object = "") -> None:
    if not holds:
        raise FaultError(f"{why}: {about!r:.600}")


@attrs.define(eq=False, repr=False)
class Oracle:
    """Judges commands. ``clients``: those attached; ``asked``: server requests not yet answered.

    ``owner``: by wire id, whose request it was.
    """

    clients: dict[ClientId, Seen] = attrs.field(factory=dict)
    asked: dict[Any, str] = attrs.field(factory=dict)
    owner: dict[int, ClientId | None] = attrs.field(factory=dict)
    is_up: bool = False

    # ── what clients say ──────────────────────────────────────────────────────────────────────

    def sends(self, client: Seen, text: bytes) -> None:
        """The client is about to send this."""
        for found in (*_TOKEN_AS_WIRE.findall(text), *_BIG.findall(text)):
            client.said.add(found)
        client.said.update(found[0] for found in _TOKEN.finditer(text))
        message = parsed(text)
        client.asking = id_of(message)
        client.names = message.get("id") if isinstance(message, dict) else None
        if client.asking is not None:
            client.owed[client.asking] += 1
        client.may_be_refused = True

    # ── what they are told ────────────────────────────────────────────────────────────────────

    def told(self, text: bytes | Rope, recipients: tuple[ClientId, ...]) -> None:
        """Judge one message to clients."""
        text = text.whole() if isinstance(text, Rope) else text
        if not recipients:
            return
        _require(b"\n" not in text, "more than one line", text)
        message = json.loads(text)
        _require(len(set(recipients)) == len(recipients), "a recipient stands twice", recipients)
        for id in recipients:
            _require(id in self.clients, "told to one that has left", text)
            client = self.clients[id]
            self._nothing_foreign(client, text)
            if "method" not in message:
                _require(len(recipients) == 1, "an answer to several", text)
                self._answered(client, message)
            elif "id" in message:
                self._offered(client, message)
            elif "observe" not in client.scopes:
                self._tells_of_its_own(client, message)

    def _nothing_foreign(self, client: Seen, text: bytes) -> None:
        if b"zq" in text:
            for found in _TOKEN.finditer(text):
                own = int(found[1]) == client.id or found[0] in client.said
                _require(own, f"client {client.id} is told another's id", text)
            for wire in _TOKEN_AS_WIRE.findall(text):
                _require(wire in client.said, f"client {client.id} is told a wire id", text)
        for number in _BIG.findall(text):
            _require(number in client.said, f"client {client.id} is told a wire id", text)

    def _answered(self, client: Seen, message: Json) -> None:
        value = message["id"]
        key: Id = (type(value), value)
        if value is None and client.binary and "binary frame" in message["error"]["message"]:
            client.binary -= 1
            return
        refused = client.may_be_refused and client.asking is None and value == client.names
        if refused and message.get("error", {}).get("message", "").startswith("Invalid request"):
            client.may_be_refused = False
        elif client.owed[key] > 0:
            client.owed[key] -= 1
        else:  # a message that is refused may have no id that could be told to it
            known = client.may_be_refused and "error" in message
            _require(known, "answered without a request", message)
            client.may_be_refused = False
            if value is None and client.asking is not None:
                client.owed[client.asking] -= 1

    def _offered(self, client: Seen, message: Json) -> None:
        _require(isinstance(message["id"], int), "offered under no number", message)
        client.offers.append(message["id"])
        rule = SERVER_REQUESTS.get(message["method"])
        if rule is None:
            needed: set[Scope] = {"approve", "admin"}
        else:
            needed = {rule.scope, "observe"} if rule.shown else {rule.scope}
        _require(needed & client.scopes, "offered to one that may not be asked", message)

    def _tells_of_its_own(self, client: Seen, message: Json) -> None:
        method = message["method"]
        rule = notification_rule(method)
        if method == "serverRequest/resolved":
            of = message["params"]["requestId"]
            _require(of in client.offers, "told of the end of what it wasn't offered", message)
        else:
            own = rule.audience in (Audience.OWNER, Audience.NAMED)
            _require(own, f"heard without observe by {sorted(client.scopes)}", message)

    # ── what goes up ──────────────────────────────────────────────────────────────────────────

    def goes_up(self, command: Forward, upstream: dict[int, Any], by: Seen | None) -> Json:
        """Judge one line to the app-server. ``upstream``: the broker's requests by wire id.

        ``by``: whose message is being handled.
        """
        line = command.line
        _require(self.is_up, "written to an app-server that isn't there", line)
        _require(b"\n" not in line and b"\r" not in line, "more than one line", line)
        message = json.loads(line)
        _require(isinstance(message, dict), "no object", line)
        if "method" not in message:
            self._answers(message, by)
        elif "id" not in message:
            _require(message["method"] == "initialized", "a notification goes up", line)
        else:
            request = upstream.get(message["id"])
            _require(request is not None, "under an id that the broker doesn't know", line)
            assert request is not None
            self.owner[message["id"]] = request.client
            client = self.clients.get(request.client or 0)
            if client is not None and request.account not in (BROKER, DEPARTED):
                self._is_allowed(client, message)
                self._names_its_own(client, message)
        return message  # type: ignore[no-any-return]

    def _answers(self, message: Json, by: Seen | None) -> None:
        id = message.get("id")
        key = id if isinstance(id, str | int) else repr(id)
        _require(key in self.asked, "answers what isn't asked", message)
        method = self.asked.pop(key)
        if by is not None and "result" in message:
            rule = SERVER_REQUESTS.get(method)
            needed = {"approve", "admin"} if rule is None else {rule.scope}
            _require(needed & by.scopes, f"answered by {sorted(by.scopes)}", (method, message))

    def _is_allowed(self, client: Seen, message: Json) -> None:
        method, params = message["method"], message.get("params")
        if method == "initialize":  # a bad one, for the app-server to refuse
            return
        about = (sorted(client.scopes), message)
        enough = {SCOPES.get(method, "admin")}
        if method in METHODS:  # what it would loosen, or steer, needs another scope in its place
            enough |= {"admin", "drive"} if method == "thread/resume" else {"admin"}
        _require(enough & client.scopes, "it lacks the scope", about)
        if method not in METHODS or "admin" in client.scopes:
            return
        _require(isinstance(params, dict), "params that can't be judged", about)
        assert isinstance(params, dict)
        for name in ("permissions", "path", "history", "trustEverything", "newSandboxProfile"):
            _require(params.get(name) is None, f"`{name}` without admin", about)
        _require(params.get("sandbox") != "danger-full-access", "no sandbox", about)
        _require(params.get("approvalPolicy") != "never", "no approvals", about)
        policy = params.get("sandboxPolicy")
        loose = isinstance(policy, dict) and policy.get("type") == "dangerFullAccess"
        _require(not loose, "no sandbox", about)
        if method in ("thread/start", "thread/fork", "thread/resume"):
            config = params.get("config")
            _require(isinstance(config, dict) and config.keys() == {"projects"}, "trusts", about)
            assert isinstance(config, dict)
            levels = [each == {"trust_level": "untrusted"} for each in config["projects"].values()]
            _require(all(levels), "trusts its directory", about)
        else:
            _require(params.get("config") in (None, {}), "brings its own config", about)

    def _names_its_own(self, client: Seen, message: Json) -> None:
        method, params = message["method"], message.get("params")
        rule = REQUESTS.get(method)
        apart: frozenset[str] = rule.server_ids if rule is not None else frozenset()
        if rule is not None and rule.own_id is not None:
            own = params.get(rule.own_id.field) if isinstance(params, dict) else None
            if not isinstance(own, str):  # which the app-server refuses
                apart |= {rule.own_id.field}
        deeply = method not in SCOPES
        if isinstance(params, dict):
            for name, value in params.items():
                if name not in apart:
                    self._look(client, name, value, message, deeply=deeply)

    def _look(self, client: Seen, name: str, value: Any, message: Json, *, deeply: bool) -> None:
        named = bool(ID_NAMED.search(name)) and len(name) <= 64
        if isinstance(value, dict) and (deeply or named):
            for field, each in value.items():
                self._look(client, field, each, message, deeply=deeply)
        elif isinstance(value, list) and (deeply or named):
            for each in value:
                self._look(client, name, each, message, deeply=deeply)
        elif named and isinstance(value, int) and value >= FIRST_WIRE and "equest" in name:
            _require(
                self.owner.get(value, client.id) == client.id, "names another's request", message
            )
        elif named and isinstance(value, str) and f":{TOKEN}" in value:
            _require(value.startswith(f"{client.id}:"), "names another's id", message)

    # ── in the end ────────────────────────────────────────────────────────────────────────────

    def all_answered(self) -> None:
        """Nobody waits for anything any more."""
        for client in self.clients.values():
            left = {key: count for key, count in client.owed.items() if count}
            _require(client.closed or not left, f"client {client.id} has no answer", left)
