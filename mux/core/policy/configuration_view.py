"""The part of the host's configuration that ``config/read`` shows to a client with ``observe``.

The TUI reads the configuration before it starts a thread, and ends if it can't. The whole of it may
hold secrets (of MCP servers, of model providers) and tells what the host trusts, so only ``admin``
may read it all.

Used by ``responses``.
"""

from __future__ import annotations

from mux.core.protocol.envelope import jsonrpc

READ = "config/read"

SHOWN = frozenset(
    {
        "approval_policy",
        "approvals_reviewer",
        "model",
        "model_provider",
        "model_reasoning_effort",
        "model_reasoning_summary",
        "model_verbosity",
        "personality",
        "review_model",
        "sandbox_mode",
        "service_tier",
        "web_search",
    }
)
"""Fields that the answer to a ``thread/start``, or a list of models, tells as well."""


def shown(line: bytes) -> bytes:
    """Return the answer to ``config/read`` with only the fields that everybody may see."""
    fields = jsonrpc.read_fields(line) or {}
    result = jsonrpc.read_fields(fields.get("result", b"")) or {}
    config = jsonrpc.read_fields(result.get("config", b"")) or {}
    visible = {name: text for name, text in config.items() if name in SHOWN}
    result = {"config": jsonrpc.write(visible), "origins": b"{}", "layers": b"null"}
    return jsonrpc.write(fields | {"result": jsonrpc.write(result)})
