"""The client that registered each dynamic tool: ``item/tool/call`` is for that client alone.

Natively a tool call goes to every subscriber, and the first that doesn't know the tool makes it
fail. A client registers tools in ``thread/start``; the app-server stores them with the thread.
"""

from __future__ import annotations

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import Owner
from mux.core.state.durable import Durable


class _Tool(msgspec.Struct):
    name: str
    tools: list[_Tool] | None = None  # of a namespace


class _StartParams(msgspec.Struct):
    dynamicTools: list[_Tool] | None = None


class ToolCall(msgspec.Struct):
    """``item/tool/call`` params, as far as they name the tool."""

    tool: str
    namespace: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The tool's namespace and name."""
        return (self.namespace or "", self.tool)


class _CallMessage(msgspec.Struct):
    params: ToolCall


REMEMBERED = 4096
"""Threads whose tools' owners are known, those that were started last. A call of an older thread's
tool is offered to the thread's followers."""


class ToolOwners(Part):
    """Owners by thread and tool."""

    durable: Durable = msgspec.field(default_factory=Durable)
    _owners: dict[str, dict[tuple[str, str], Owner]] = msgspec.field(default_factory=dict)

    def register(self, thread: str, start_params: bytes, owner: Owner) -> None:
        """Remember the tools of a thread that this client started with these params."""
        try:
            tools = _start_decoder.decode(start_params).dynamicTools or []
        except msgspec.DecodeError:
            return
        keys: list[tuple[str, str]] = []
        for tool in tools:
            if tool.tools is None:
                keys.append(("", tool.name))
            else:
                keys.extend((tool.name, inner.name) for inner in tool.tools)
        if keys:
            owners = self._owners.pop(thread, {}) | dict.fromkeys(keys, owner)
            self._owners[thread] = owners
            self.durable.touch("tools", thread)
            if len(self._owners) > REMEMBERED:
                self.forget(next(iter(self._owners)))

    def of(self, thread: str) -> dict[tuple[str, str], Owner]:
        """Return the owners of a thread's tools, by namespace and tool."""
        return self._owners.get(thread, {})

    def restore(self, thread: str, owners: dict[tuple[str, str], Owner]) -> None:
        """Restore the owners that an earlier broker knew."""
        self._owners[thread] = owners

    def owner(self, thread: str | None, call: ToolCall) -> Owner | None:
        """Return the client that registered the tool; None if none did in this broker's life."""
        return self._owners.get(thread or "", {}).get(call.key)

    def forget(self, thread: str) -> None:
        """Forget a thread that is gone for good."""
        if self._owners.pop(thread, None) is not None:
            self.durable.touch("tools", thread)


def read_call(line: bytes) -> ToolCall | None:
    """Return the tool that an ``item/tool/call`` names."""
    try:
        return _call_decoder.decode(line).params
    except msgspec.DecodeError:
        return None


def unavailable(text: str) -> dict[str, object]:
    """Return a tool's result that tells the model, in words, why the tool couldn't run."""
    return {"contentItems": [{"type": "inputText", "text": text}], "success": False}


_start_decoder = msgspec.json.Decoder(_StartParams)
_call_decoder = msgspec.json.Decoder(_CallMessage)
