"""The steps of a scripted response, and the server-sent events made from them.

No sockets and no clock: `stream` yields the bytes of the events, and the gates and pauses between
them. `scripted_model` writes the bytes, waits at the gates and makes the pauses.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

Json: TypeAlias = dict[str, Any]
NextId: TypeAlias = Callable[[str], str]


# --- Steps: what one response is made of ---------------------------------------------------------


@attrs.frozen
class Hold:
    """A gate: the stream waits here until the model's `release(name)`."""

    name: str


@attrs.frozen
class Say:
    """An agent message."""

    text: str = ""
    """The message; empty if `chunks` gives the deltas."""
    chunks: int | tuple[str | Hold, ...] = 1
    """The number of deltas to cut `text` into, or the deltas themselves.

    A `Hold` may stand among the latter: `Say(chunks=("Hel", Hold("mid"), "lo"))`.
    """
    pace: float = 0.0
    """The pause before each delta, in seconds: for a demonstration, never for a test."""


@attrs.frozen
class Reason:
    """A reasoning item: a summary, and optionally the raw text, each streamed as one delta.

    The app-server passes raw text on only if its config says `show_raw_agent_reasoning = true`.
    """

    summary: str
    text: str = ""


@attrs.frozen
class Run:
    """Run a shell command."""

    cmd: str
    escalated: bool = False
    """Leave the sandbox, which needs an approval."""
    justification: str = "the script says so"


@attrs.frozen
class Patch:
    """Change files: the text from `*** Begin Patch` to `*** End Patch`.

    In a read-only sandbox this needs a file-change approval.
    """

    patch: str


@attrs.frozen
class CallTool:
    """Call any tool by name: a dynamic tool, `request_user_input`, `spawn_agent`, …"""

    name: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    namespace: str | None = None


@attrs.frozen
class Fail:
    """Fail: by HTTP status as the first step, by `response.failed` as a later one."""

    status: int = 500
    message: str = "the script says that the model fails"
    code: str = "server_error"


Call: TypeAlias = Run | Patch | CallTool
Step: TypeAlias = Say | Reason | Run | Patch | CallTool | Hold | Fail
Response: TypeAlias = tuple[Step, ...]


# --- Events: what a response becomes -------------------------------------------------------------


@attrs.frozen
class Pause:
    """Send what there is so far, and wait for `seconds`."""

    seconds: float


def stream(steps: Response, next_id: NextId) -> Iterator[bytes | Hold | Pause]:
    """Yield the events of one response, from `response.created` to `response.completed`.

    `next_id` makes an id that no other item has, from a prefix.
    """
    response_id = next_id("resp")
    yield _event("response.created", response={"id": response_id})
    for index, step in enumerate(steps):
        match step:
            case Fail():
                error = {"code": step.code, "message": step.message}
                failed = {"id": response_id, "status": "failed", "error": error}
                yield _event("response.failed", response=failed)
                return
            case Hold():
                yield step
            case Say():
                yield from _message(step, index, next_id("msg"))
            case Reason():
                yield from _reasoning(step, index, next_id("rs"))
            case Run() | Patch() | CallTool():
                yield _item("done", index, _call(step, next_id))
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    yield _event("response.completed", response={"id": response_id, "usage": usage})


def _message(step: Say, index: int, item_id: str) -> Iterator[bytes | Hold | Pause]:
    item: Json = {"type": "message", "id": item_id, "role": "assistant", "content": []}
    yield _item("added", index, item)
    delta = _delta("response.output_text.delta", item_id, output_index=index, content_index=0)
    chunks: list[str] = []
    for chunk in _cut(step):
        if isinstance(chunk, Hold):
            yield chunk
            continue
        if step.pace:
            yield Pause(step.pace)
        chunks.append(chunk)
        yield delta(chunk)
    content = [{"type": "output_text", "text": "".join(chunks), "annotations": []}]
    yield _item("done", index, {**item, "content": content})


def _cut(step: Say) -> tuple[str | Hold, ...]:
    """Return a message's deltas: as given, or the text in `chunks` pieces of near equal size."""
    if not isinstance(step.chunks, int):
        return step.chunks
    pieces = max(1, min(step.chunks, len(step.text)))
    ends = [len(step.text) * n // pieces for n in range(pieces + 1)]
    return tuple(step.text[start:end] for start, end in itertools.pairwise(ends))


def _reasoning(step: Reason, index: int, item_id: str) -> Iterator[bytes]:
    item: Json = {"type": "reasoning", "id": item_id, "summary": []}
    yield _item("added", index, item)
    where = {"item_id": item_id, "output_index": index, "summary_index": 0}
    yield _event("response.reasoning_summary_part.added", **where)
    yield _event("response.reasoning_summary_text.delta", **where, delta=step.summary)
    item["summary"] = [{"type": "summary_text", "text": step.summary}]
    if step.text:
        where = {"item_id": item_id, "output_index": index, "content_index": 0}
        yield _event("response.reasoning_text.delta", **where, delta=step.text)
        item["content"] = [{"type": "reasoning_text", "text": step.text}]
    yield _item("done", index, item)


def _call(step: Call, next_id: NextId) -> Json:
    name, arguments = _called(step)
    item: Json = {
        "type": "function_call",
        "id": next_id("fc"),
        "call_id": next_id("call"),
        "name": name,
        "arguments": json.dumps(arguments),
    }
    if isinstance(step, CallTool) and step.namespace is not None:
        item["namespace"] = step.namespace
    return item


def _called(step: Call) -> tuple[str, Json]:
    """Return the function's name and arguments."""
    match step:
        case Run(cmd, escalated, justification):
            leave = {"sandbox_permissions": "require_escalated", "justification": justification}
            return "exec_command", {"cmd": cmd} | (leave if escalated else {})
        case Patch(patch):
            # Codex recognises this very command and applies the patch itself.
            return "exec_command", {"cmd": f"apply_patch <<'EOF'\n{patch.strip()}\nEOF\n"}
        case CallTool(name, arguments):
            return name, dict(arguments)


def _delta(name: str, item_id: str, **where: int) -> Callable[[str], bytes]:
    """Return a function that makes a delta event from its text. The rest is encoded only once."""
    fixed = json.dumps({"type": name, "item_id": item_id, **where})
    head = f'event: {name}\ndata: {fixed[:-1]}, "delta": '
    return lambda text: f"{head}{json.dumps(text)}}}\n\n".encode()


def _item(stage: str, index: int, item: Json) -> bytes:
    return _event(f"response.output_item.{stage}", output_index=index, item=item)


def _event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()
