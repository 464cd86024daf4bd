"""What of the host's configuration whoever may ``observe`` is shown by ``config/read``.

The TUI reads it before it starts a thread, and ends if it can't. The whole of it may hold secrets
(of MCP servers, of model providers) and tells what the host trusts: that is for ``admin``.

Heard from: ``responses``.
"""

from __future__ import annotations

from mux.core.protocol import jsonrpc

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
"""What the answer to a ``thread/start`` says as well, or a list of models."""


def shown(line: bytes) -> bytes:
    """The answer to ``config/read`` with no more than what is shown to all."""
    fields = jsonrpc.read_fields(line) or {}
    result = jsonrpc.read_fields(fields.get("result", b"")) or {}
    config = jsonrpc.read_fields(result.get("config", b"")) or {}
    kept = {name: text for name, text in config.items() if name in SHOWN}
    told = {"config": jsonrpc.write(kept), "origins": b"{}", "layers": b"null"}
    return jsonrpc.write(fields | {"result": jsonrpc.write(told)})
