"""A scripted model: a local server that answers `codex app-server` in a real model's place.

The server implements the OpenAI Responses API over server-sent events, as far as Codex uses it. So
the demo, the tests and the benchmark run the real app-server without a network or an account. Its
output is a *script*: for a needle found in the user's words, a list of responses, each a list of
steps. Codex plays the first response; if that calls functions, Codex sends their outputs with a
next request, and gets the next response.

The response that is due is read from the request itself, by the number of outputs after the user's
last words. So any number of threads can be in the middle of one script, and a restarted app-server
continues where it was. Scripts and gates are the only state.

The server answers over HTTP on a loopback port of its own: `codex app-server` sends `POST
…/responses` (see `codex_config`). The script's author uses `Scripted.on`, `Scripted.reached` and
`Scripted.release`.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import h11
import trio

from mux.demo.scripted_steps import (
    Call,
    CallTool,
    Fail,
    Hold,
    Json,
    Patch,
    Pause,
    Reason,
    Response,
    Run,
    Say,
    Step,
    stream,
)

__all__ = [
    "CallTool",
    "Fail",
    "Hold",
    "Patch",
    "Reason",
    "Response",
    "Run",
    "Say",
    "Scripted",
    "Step",
    "codex_config",
    "serve",
]

# A request repeats the whole thread, so it grows with it; this bounds a runaway client.
MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
# Requests kept for a test to examine. A test makes dozens; the bound is for `demo --hold`.
MAX_KEPT_REQUESTS: Final = 1000
# Events are joined until this many bytes are waiting: 20,000 deltas are some 50 writes.
BATCH_BYTES: Final = 64 * 1024
RECEIVE_BYTES: Final = 64 * 1024
# Characters of the user's words that the default answer repeats.
MAX_ECHO: Final = 200


# The response when a script's functions have answered and it has no further response.
CLOSING: Final[Response] = (Say("Done."),)


# --- The script ----------------------------------------------------------------------------------


@attrs.define
class Scripted:
    """The model's scripts, and the requests that it got."""

    base_url: str = ""
    """Known once `serve` has started."""
    requests: deque[Json] = attrs.field(factory=lambda: deque(maxlen=MAX_KEPT_REQUESTS))
    """The latest request bodies, parsed, oldest first."""
    _scripts: list[tuple[str, tuple[Response, ...]]] = attrs.field(factory=list)
    _reached: dict[str, trio.Event] = attrs.field(factory=dict)
    _released: dict[str, trio.Event] = attrs.field(factory=dict)
    _ids: Iterator[int] = attrs.field(factory=itertools.count)

    def on(self, needle: str, *responses: Step | Response) -> None:
        """Play `responses` in order for user text that contains `needle`.

        A single step stands for a response of only that step. If several needles match, the one
        given last wins.
        """
        normal = tuple(item if isinstance(item, tuple) else (item,) for item in responses)
        self._scripts.append((needle, normal))

    def release(self, name: str) -> None:
        """Open the gate `name`, for the streams that wait at it and for later ones."""
        self._released.setdefault(name, trio.Event()).set()

    async def reached(self, name: str) -> None:
        """Wait until some stream waits at the gate `name` (or has passed it)."""
        await self._reached.setdefault(name, trio.Event()).wait()

    async def pass_gate(self, name: str) -> None:
        """Wait at the gate `name` until it is open."""
        self._reached.setdefault(name, trio.Event()).set()
        await self._released.setdefault(name, trio.Event()).wait()

    def answer(self, request: Json) -> Response:
        """Return the response that is due for a request body."""
        schema = _output_schema(request)
        if schema is not None:
            return (Say(json.dumps(_instance(schema))),)
        text, outputs = _progress(request)
        script: tuple[Response, ...] = ((Say(f"You said: {text[:MAX_ECHO]}"),),)
        for needle, responses in self._scripts:
            if needle in text:
                script = responses
        for response in script:
            if outputs <= 0:
                return response
            outputs -= sum(isinstance(step, Call) for step in response)
        return CLOSING

    def next_id(self, prefix: str) -> str:
        """Return an id that no other item of this model has."""
        return f"{prefix}_{next(self._ids)}"


def _progress(request: Json) -> tuple[str, int]:
    """Return the user's last words, and the number of tool outputs after them."""
    outputs = 0
    for item in reversed(request.get("input") or ()):
        if str(item.get("type", "")).endswith("_call_output"):
            outputs += 1
        elif item.get("role") == "user":
            text = "".join(part.get("text") or "" for part in item.get("content") or ())
            # Codex sends its facts about the machine and the project as words of the user.
            if not text.startswith(("<", "# AGENTS")):
                return text, outputs
    return "", outputs


def _output_schema(request: Json) -> Json | None:
    """Return the JSON schema that the answer must fulfil (for a thread's title, say), if any."""
    form = (request.get("text") or {}).get("format") or {}
    schema = form.get("schema")
    return schema if isinstance(schema, dict) else None


def _instance(schema: Json) -> Any:
    """Return a small value that fulfils `schema`, as far as Codex's own schemas go."""
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _instance(schema[union][0])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: _instance(sub) for name, sub in schema.get("properties", {}).items()}
        case "array":
            return [_instance(schema.get("items", {}))] * int(schema.get("minItems", 0))
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "Scripted".ljust(int(schema.get("minLength", 0)), ".")


# --- The server ----------------------------------------------------------------------------------


async def serve(
    model: Scripted, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `model` on a free loopback port until cancelled; starts with the base URL."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    model.base_url = f"http://127.0.0.1:{port}/v1"

    async def accept(stream: trio.SocketStream) -> None:
        await _serve_one(model, stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, accept, listeners)
        task_status.started(model.base_url)


async def _serve_one(model: Scripted, stream: trio.SocketStream) -> None:
    """Serve one connection, which is one request: the app-server opens another for the next."""
    wire = _Wire(stream)
    try:
        request = await wire.receive()
        if request is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.cancel_when_closed, nursery.cancel_scope)
            await _answer(model, wire, *request)
            nursery.cancel_scope.cancel()
    except h11.RemoteProtocolError as error:
        await wire.refuse(error.error_status_hint, str(error))


async def _answer(model: Scripted, wire: _Wire, method: str, path: str, body: bytes) -> None:
    """Answer one request, in a stream if it is for a response."""
    if (method, path.rpartition("/")[2]) != ("POST", "responses"):
        await wire.refuse(404, f"the scripted model serves POST …/responses, not {method} {path}")
        return
    try:
        request = json.loads(body)
    except ValueError as error:
        await wire.refuse(400, f"the request body is not JSON: {error}")
        return
    model.requests.append(request)
    steps = model.answer(request)
    while steps and isinstance(steps[0], Hold):
        await model.pass_gate(steps[0].name)
        steps = steps[1:]
    if steps and isinstance(steps[0], Fail):
        await wire.refuse(steps[0].status, steps[0].message, steps[0].code)
        return
    await wire.begin(200, "text/event-stream")
    await _play(model, wire, steps)
    await wire.end()


async def _play(model: Scripted, wire: _Wire, steps: Response) -> None:
    """Stream `steps`; one write holds all events up to the next gate or pause, or `BATCH_BYTES`."""
    owed = bytearray()
    for piece in stream(steps, model.next_id):
        if isinstance(piece, bytes):
            owed += piece
            if len(owed) < BATCH_BYTES:
                continue
        await wire.send(owed)
        owed.clear()
        if isinstance(piece, Hold):
            await model.pass_gate(piece.name)
        elif isinstance(piece, Pause):
            await trio.sleep(piece.seconds)
    await wire.send(owed)


@attrs.define
class _Wire:
    """HTTP on one connection: one request in, one response out, then closed.

    A peer that leaves in the middle is no error: an interrupted turn does just that.
    """

    _stream: trio.SocketStream
    _http: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.SERVER))
    _gone: bool = False

    async def receive(self) -> tuple[str, str, bytes] | None:
        """Return method, path and body of the request; None if the peer left without one."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(
                        self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
                    )
                self._http.receive_data(await self._receive_some())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_REQUEST_BYTES:
                    raise h11.RemoteProtocolError("the request is too large", 413)
            elif head is not None and isinstance(event, h11.EndOfMessage):
                return head.method.decode(), head.target.decode().partition("?")[0], bytes(body)
            else:
                return None

    async def cancel_when_closed(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the peer leaves: an interrupted turn hangs up at a gate."""
        while await self._receive_some():
            pass
        scope.cancel()

    async def begin(self, status: int, content_type: str) -> None:
        """Send the head of the response."""
        headers = [("content-type", content_type), ("connection", "close")]
        head = h11.Response(status_code=status, headers=headers)
        await self._send(self._http.send(head))

    async def send(self, body: bytes | bytearray) -> None:
        """Send a piece of the response's body."""
        if body:
            await self._send(self._http.send(h11.Data(data=bytes(body))))

    async def end(self) -> None:
        """Complete the response, and close."""
        await self._send(self._http.send(h11.EndOfMessage()))
        await self._stream.aclose()

    async def refuse(self, status: int, message: str, code: str = "invalid_request_error") -> None:
        """Answer with an error as the Responses API words it."""
        await self.begin(status, "application/json")
        await self.send(json.dumps({"error": {"message": message, "code": code}}).encode())
        await self.end()

    async def _receive_some(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _send(self, data: bytes | None) -> None:
        if self._gone or not data:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone = True


# --- The app-server's configuration --------------------------------------------------------------


def codex_config(base_url: str, **extra: Any) -> str:
    """Return the text of a `config.toml` that makes Codex use this model, and no other.

    `extra` overrides it: a mapping is a table and is merged into the one of that name, anything
    else is a value (`sandbox_mode="workspace-write"`, `features={"goals": False}`).
    """
    config: Json = {
        "model": "scripted",
        "model_provider": "scripted",
        "approval_policy": "on-request",
        "sandbox_mode": "read-only",
        "check_for_update_on_startup": False,
        "suppress_unstable_features_warning": True,
        "analytics": {"enabled": False},
        "features": {
            # These open connections to the network when the app-server starts.
            "apps": False,
            "plugins": False,
            "remote_plugin": False,
            # Runs a login shell for every thread, which is slow and of no use here.
            "shell_snapshot": False,
            # A model that a script makes fail shall fail, not be tried for ever.
            "unbounded_connection_retries": False,
            # Without this the request_user_input tool refuses outside of plan mode.
            "default_mode_request_user_input": True,
        },
        "model_providers": {
            "scripted": {
                "name": "Scripted model",
                "base_url": base_url,
                "wire_api": "responses",
                "request_max_retries": 0,
                "stream_max_retries": 0,
                "supports_websockets": False,
            }
        },
    }
    return "\n".join(_toml(_merged(config, extra))) + "\n"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _toml(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the lines of a table: its values first, then the tables inside it."""
    for key, value in table.items():
        if not isinstance(value, Mapping):
            # A JSON string, number, boolean or list of these is also TOML.
            yield f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = f"{path}.{json.dumps(key)}" if path else json.dumps(key)
            yield f"\n[{inner}]"
            yield from _toml(value, inner)
