"""A thread that can do nothing but talk: the TUI starts one to have another thread's title made.

Its ``thread/start`` has a ``config`` that switches tools off, is read-only, and lets nobody be
asked. Each of these alone may loosen what holds (a hook that is off guards nothing); all together
leave nothing that could be done. So such a thread is recognized only by the whole request, and only
by names and values that are known.

Used by ``scopes`` and ``directory_verdict``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mux.core.protocol.threads.thread_overrides import NULL, READ_ONLY_PROFILE, Fields

_SERVERS = "mcp_servers"

_TOOLS = frozenset(
    {"features.shell_tool", "features.unified_exec", "features.code_mode"}
    | {"features.plugins", "features.apps", "features.multi_agent", _SERVERS}
)
"""Features that must be off: all that run something, or bring in what does."""

_FEATURES = """
    code_mode_only context_management current_time_reminder deferred_executor enable_fanout goals
    hooks image_generation memories multi_agent_v2 request_permissions_tool shell_snapshot
    standalone_web_search token_budget tool_suggest view_image
"""

_OFF: dict[str, object] = {
    **dict.fromkeys(_TOOLS - {_SERVERS}, False),
    **dict.fromkeys((f"features.{name}" for name in _FEATURES.split()), False),
    "cloud.skills.enabled": False,
    "default_permissions": READ_ONLY_PROFILE,
    "skills.include_instructions": False,
    "tools.experimental_request_user_input.enabled": False,
    "tools.update_plan.enabled": False,
    "web_search": "disabled",
}
"""All that such a ``config`` may set, and to what: as codex 0.163.0 and 0.171.0 send it."""

_ALLOWED = ("approvalPolicy", "config", "permissions")
"""Params that need no scope of their own where a thread is confined."""


def is_confined(method: str, fields: Fields) -> bool:
    """Return whether the request starts a thread that can do nothing but talk."""
    if method != "thread/start" or bytes(fields.get("environments", b"")) != b"[]":
        return False  # nearly all requests end here, without reading anything else
    try:
        return _is_confined({name: _value(fields, name) for name in _LOOKED_AT})
    except (msgspec.DecodeError, RecursionError):
        return False


_LOOKED_AT = (
    *_ALLOWED,
    "dynamicTools",
    "ephemeral",
    "sandbox",
    "selectedCapabilityRoots",
)


def _value(fields: Fields, name: str) -> object:
    return msgspec.json.decode(bytes(fields.get(name, NULL)))


def _is_confined(settings: Mapping[str, object]) -> bool:
    permissions = settings["sandbox"], settings["permissions"]
    brings_nothing = not settings["dynamicTools"] and not settings["selectedCapabilityRoots"]
    return (
        settings["ephemeral"] is True  # the thread can be neither forked nor loaded with more
        and brings_nothing
        and settings["approvalPolicy"] in (None, "never")
        and permissions in (("read-only", None), (None, READ_ONLY_PROFILE))
        and _switches_off(settings["config"])
    )


def _switches_off(config: object) -> bool:
    if not isinstance(config, dict) or not config.keys() >= _TOOLS:
        return False
    return all(_is_off(name, value) for name, value in config.items())


def _is_off(name: str, value: object) -> bool:
    if name == _SERVERS:  # (the servers that the client knows of)
        servers = value.values() if isinstance(value, dict) else [None]
        return all(each == {"enabled": False} for each in servers)
    return name in _OFF and type(value) is type(_OFF[name]) and value == _OFF[name]


def to_be_judged(method: str, fields: Fields) -> Fields:
    """Return the params to compare with what holds: all, or those that confine nothing.

    Of a confined thread, the params in ``_ALLOWED`` are left out.
    """
    if not is_confined(method, fields):
        return fields
    return {name: value for name, value in fields.items() if name not in _ALLOWED}


def config_of(fields: Mapping[str, bytes], distrust: bytes, servers: Iterable[str]) -> bytes:
    """Return the ``config`` with which a confined thread goes up.

    It is the thread's own ``config``, with entries for what is distrusted, and with all of the
    host's servers off. The servers that the client named needn't be the host's, and a table that
    lacks a server leaves that server on.
    """
    own = msgspec.json.decode(fields["config"], type=dict[str, msgspec.Raw])
    own |= msgspec.json.decode(distrust, type=dict[str, msgspec.Raw])
    off = {name: {"enabled": False} for name in servers}
    return msgspec.json.encode(own | {_SERVERS: msgspec.Raw(msgspec.json.encode(off))})
