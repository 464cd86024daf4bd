"""The part of the protocol that a client gets only with ``capabilities.experimentalApi``.

The app-server checks the capability by connection. The broker's own connection declares it, so the
broker does for each client what the app-server would do:

* it refuses a method that is experimental, and a request that uses an experimental field;
* it withholds some notifications (they count as opted out of);
* it leaves out one field of one server request.

Results are passed whole. The JSON Schema of the installed binary, with and without experimental
parts, says which methods and fields are experimental (see ``gate_of``). Constants below say what
the schema can't tell: ``WITHHELD``, ``HIDDEN``, ``_NULL_IS_USE``, ``_EMPTY_IS_NONE``,
``_GRANULAR``.

Natively every request is parsed first. So a request whose params can't be parsed isn't refused here
but passes, and the app-server says in its own words what is wrong.

Used by ``broker`` for requests of clients without the capability, by ``client`` and by
``server_requests``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.threads import thread_overrides

WITHHELD = frozenset(
    {
        "autoApprovalReview/strictReviewRequired",
        "mcpServer/event/stream/notification",
        "process/exited",
        "process/outputDelta",
        "project/changed",
        "thread/environment/connected",
        "thread/environment/disconnected",
        "thread/project/updated",
        "thread/queue/changed",
        "thread/readState/changed",
        "thread/realtime/closed",
        "thread/realtime/error",
        "thread/realtime/item/completed",
        "thread/realtime/item/started",
        "thread/realtime/item/transcript/delta",
        "thread/realtime/itemAdded",
        "thread/realtime/outputAudio/delta",
        "thread/realtime/sdp",
        "thread/realtime/started",
        "thread/realtime/transcript/delta",
        "thread/realtime/transcript/done",
        "thread/settings/updated",
        "turn/moderationMetadata",
    }
)
"""Notifications that natively don't go to a connection without the capability."""

HIDDEN = {"item/commandExecution/requestApproval": "additionalPermissions"}
"""Fields of server requests that are left out for a client without the capability."""


_NULL_IS_USE = frozenset({("thread/list", "projectId")})
"""Fields whose ``null`` differs from their absence, so that a ``null`` uses them."""

_EMPTY_IS_NONE = frozenset({("thread/resume", "path"), ("thread/fork", "path")})
"""Fields whose empty text means the same as their absence."""

_GRANULAR = ("approvalPolicy", "granular", "askForApproval.granular")
"""A field that is stable, its variant that isn't, and how the refusal names the variant."""

_ABSOLUTE_PATH = "AbsolutePathBuf"
"""The definition of paths; a relative path is natively a parse error."""

_NO_PARAMS = {"type": "null"}
"""The params of a method that has none. An empty object is accepted in their place."""


class Gate(msgspec.Struct, frozen=True):
    """The experimental part of one version of codex."""

    version: str
    methods: frozenset[str]
    """Methods that are wholly experimental."""
    fields: dict[str, list[str]]
    """Experimental fields of other methods, in the order in which codex looks for them."""
    params: dict[str, Any]
    """The schemas of the params of all these methods."""
    definitions: dict[str, Any]
    """The definitions that ``params`` refer to."""

    def refuses(self, method: str, params: bytes) -> str | None:
        """Return what in the request needs the capability, as the refusal names it.

        Return None if nothing does.
        """
        if method not in self.params or not self._names_one(method, params):
            return None
        try:
            value = msgspec.json.decode(params)
        except (msgspec.DecodeError, RecursionError):
            return None  # the app-server will say what is wrong
        reason = method if method in self.methods else self._used(method, value)
        schema = self.params[method]
        taken = value == {} and schema == _NO_PARAMS
        return reason if reason and (taken or not self._misfits(schema, value)) else None

    def _names_one(self, method: str, params: bytes) -> bool:
        """Return whether the request may be refused at all: quickly, as params may be large."""
        if method in self.methods:
            return True
        named = thread_overrides.read(params) or {}  # which copies no value
        return any(name in named for name in self.fields.get(method, ()))

    def _used(self, method: str, params: Any) -> str | None:
        """Return the first experimental field that the params use."""
        if not isinstance(params, dict):
            return None
        for name in self.fields.get(method, ()):
            if name in params and (used := self._uses(method, name, params[name])):
                return used
        return None

    def _uses(self, method: str, name: str, value: Any) -> str | None:
        field, variant, named = _GRANULAR
        if name == field:
            return named if isinstance(value, dict) and variant in value else None
        if value is None:
            absent = (method, name) not in _NULL_IS_USE
        elif value == "":
            absent = (method, name) in _EMPTY_IS_NONE
        elif value is False or value in ([], {}):
            absent = not self._is_nullable(method, name)
        else:
            absent = False
        return None if absent else f"{method}.{name}"

    def _is_nullable(self, method: str, name: str) -> bool:
        """Return whether the field may be null: if so, an empty list or a false is a use of it."""
        property = self._resolved(self.params[method]).get("properties", {}).get(name)
        if not isinstance(property, dict):  # the schema allows anything
            return True
        return "null" in property.get("type", ()) or {"type": "null"} in property.get("anyOf", ())

    def _resolved(self, schema: Any) -> dict[str, Any]:
        return _resolved(schema, self.definitions)

    def _misfits(self, schema: Any, value: Any) -> bool:
        return _Parsing(self.definitions).misfits(schema, value)


# ── what can't be parsed ──────────────────────────────────────────────────────────────────────────

MOST_STEPS = 500
"""Steps spent on one request's params, of two microseconds, while all others wait. Ordinary
params take fifteen. Of params that take more (many parts, or a value nested in a type of many
variants) it isn't known whether they can be parsed."""


class _Parsing(msgspec.Struct):
    """A check whether the app-server surely can't parse a value; in doubt it can.

    The app-server takes a list for an object, with the fields' values in order. The schema doesn't
    say how many of them may be left out.
    """

    definitions: dict[str, Any]
    steps: int = 0

    def misfits(self, schema: Any, value: Any) -> bool:
        self.steps += 1
        if self.steps > MOST_STEPS:
            return False
        if isinstance(value, str) and isinstance(schema, dict):
            path = schema.get("$ref", "").endswith(f"/{_ABSOLUTE_PATH}")
            if path and not value.startswith(("/", "~")):
                return True
        whole = _resolved(schema, self.definitions)
        if self._fits_no_variant(whole, value) or _is_of_another_kind(whole.get("type"), value):
            return True
        if "enum" in whole and isinstance(value, str) and value not in whole["enum"]:
            return True
        if isinstance(value, dict):
            return self._object_misfits(whole, value)
        return isinstance(value, list) and self._list_misfits(whole, value)

    def _fits_no_variant(self, schema: dict[str, Any], value: Any) -> bool:
        for variants in (schema.get("anyOf"), schema.get("oneOf")):
            if variants and all(self.misfits(each, value) for each in variants):
                return True
        return any(self.misfits(each, value) for each in schema.get("allOf", ()))

    def _object_misfits(self, schema: dict[str, Any], value: dict[str, Any]) -> bool:
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        if any(name not in value for name in schema.get("required", ())):
            return True
        if others is False and value.keys() - known.keys():
            return True
        return any(self.misfits(known.get(name, others), each) for name, each in value.items())

    def _list_misfits(self, schema: dict[str, Any], value: list[Any]) -> bool:
        if "object" in schema.get("type", ()):
            others = schema.get("additionalProperties")
            is_map = isinstance(others, dict) or others is True
            return is_map or len(value) < len(schema.get("required", ()))
        items = schema.get("items")
        return any(self.misfits(items, each) for each in value)


def _resolved(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema behind references; one that allows anything where there is none."""
    for _ in range(len(definitions) + 1):  # the longest chain without a circle
        if not (isinstance(schema, dict) and "$ref" in schema):
            break
        schema = definitions.get(_name(schema["$ref"]))
    return schema if isinstance(schema, dict) else {}


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict, list),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _is_of_another_kind(named: str | list[str] | None, value: Any) -> bool:
    if named is None:
        return False
    if not isinstance(named, str):
        nullable = "null" in named
        rest = [each for each in named if each != "null"]
        return not (value is None and nullable) and all(
            _is_of_another_kind(each, value) for each in rest
        )
    if isinstance(value, bool):
        return named != "boolean"
    return not isinstance(value, _KINDS.get(named, (object,)))


def _name(reference: str) -> str:
    """Return the definition's name: ``#/definitions/v2/X`` → ``v2/X``."""
    return reference.removeprefix("#/definitions/")


def without_hidden(method: str, message: bytes) -> bytes | None:
    """Return a server request without its hidden field; None if it has no such field."""
    field = HIDDEN.get(method)
    if field is None or field.encode() not in message:
        return None
    fields = jsonrpc.read_fields(message) or {}
    params = jsonrpc.read_fields(fields.get("params", b"")) or {}
    if params.pop(field, None) is None:
        return None
    return jsonrpc.write(fields | {"params": jsonrpc.write(params)})


# ── from a binary's schemas ───────────────────────────────────────────────────────────────────────

_KEPT = frozenset(
    {"$ref", "additionalProperties", "allOf", "anyOf", "enum", "items", "oneOf", "properties"}
    | {"required", "type"}
)
"""Keywords of a schema that are read here."""


def gate_of(
    version: str, stable: bytes, experimental: bytes, orders: Mapping[str, list[str]]
) -> Gate:
    """Compare codex's two bundles of definitions, and return what is experimental.

    ``orders`` has the fields of each type of params, by the type's name, in the order of their
    declaration: codex looks for them in that order. A type that isn't there keeps the schema's
    order. Raises ``ValueError`` if these are no such bundles.
    """
    try:
        return _difference(version, _read(stable), _read(experimental), orders)
    except (AttributeError, KeyError, TypeError, RecursionError) as odd:
        raise ValueError(f"a definition isn't of the shape that it was: {odd!r}") from odd


def _difference(
    version: str, before: dict[str, Any], after: dict[str, Any], orders: Mapping[str, list[str]]
) -> Gate:
    stable_params = dict(_requests(before))
    methods: set[str] = set()
    params: dict[str, Any] = {}
    fields: dict[str, list[str]] = {}
    for method, schema in _requests(after):
        if method not in stable_params:
            methods.add(method)
        else:
            known = _properties(stable_params[method], before)
            now = _properties(schema, after)
            used = [name for name in now if name not in known]
            if _GRANULAR[0] in now:
                used.append(_GRANULAR[0])
            if not used:
                continue
            fields[method] = _in_order(used, orders.get(_type_of(schema), []))
        params[method] = _slim(schema)
    return Gate(version, frozenset(methods), fields, params, _closure(params, after))


def _read(bundle: bytes) -> dict[str, Any]:
    """Return the definitions of a bundle, flat: those of a version (``v2``) under ``v2/NAME``."""
    try:
        nested = msgspec.json.decode(bundle, type=dict[str, Any])["definitions"]
    except (msgspec.DecodeError, KeyError) as wrong:
        raise ValueError(f"no bundle of definitions: {wrong!r}") from wrong
    flat: dict[str, Any] = {}
    for name, methods in nested.items():
        if isinstance(methods, dict) and not methods.keys() & (_KEPT | {"title", "description"}):
            flat |= {f"{name}/{inner}": schema for inner, schema in methods.items()}
        else:
            flat[name] = methods
    if "ClientRequest" not in flat:
        raise ValueError("the bundle has no definition of `ClientRequest`")
    return flat


def _requests(definitions: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each request of clients: its method, and the schema of its params."""
    for variant in definitions["ClientRequest"]["oneOf"]:
        (method,) = variant["properties"]["method"]["enum"]
        yield method, variant["properties"].get("params", _NO_PARAMS)


def _properties(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    known = definitions.get(_type_of(schema), {})
    properties: dict[str, Any] = known.get("properties", {})
    return properties


def _type_of(schema: Any) -> str:
    """Return the name of the type of params, as ``v2/X``; empty if it has none."""
    return _name(schema.get("$ref", ""))


def _in_order(names: list[str], order: list[str]) -> list[str]:
    place = {name: at for at, name in enumerate(order)}
    return sorted(names, key=lambda name: place.get(name, len(order)))


def _slim(schema: Any) -> Any:
    """Return the schema without what is never read (descriptions, above all)."""
    if not isinstance(schema, dict):
        return schema
    slim: dict[str, Any] = {}
    for name in _KEPT & schema.keys():
        value = schema[name]
        if name == "properties":
            slim[name] = {each: _slim(inner) for each, inner in value.items()}
        elif isinstance(value, list) and name.endswith("Of"):
            slim[name] = [_slim(each) for each in value]
        else:
            slim[name] = _slim(value)
    return slim


def _closure(schemas: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return all definitions that these schemas refer to, directly or by others."""
    shapes: dict[str, Any] = {}
    names = list(_references(schemas))
    while names:
        name = names.pop()
        if name not in shapes and name in definitions:
            shapes[name] = _slim(definitions[name])
            names += _references(shapes[name])
    return shapes


def _references(part: Any) -> Iterator[str]:
    values: Iterable[Any] = ()
    if isinstance(part, dict):
        values = part.values()
        if isinstance(part.get("$ref"), str):
            yield _name(part["$ref"])
    elif isinstance(part, list):
        values = part
    for value in values:
        yield from _references(value)
