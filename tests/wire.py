"""Whether a message is one that codex's own schema allows: the judge of what the broker composes.

Hands to: the tests. Hears from: the schema that the installed codex writes (`codex_bundles`).
"""

from __future__ import annotations

import functools
from typing import Any

import attrs
from jsonschema import Draft7Validator

from tests import extension_schemas
from tests.codex_bundles import Bundle, Json, bundle

OWN = frozenset({"appmux", "seq", "cursor"})
"""Top-level fields of the extension's."""


@attrs.define(eq=False)
class Judge:
    """What one codex's schema says of messages, with what is experimental."""

    bundle: Bundle = attrs.field(factory=lambda: bundle(experimental=True))

    def down(self, message: Json, asked: str | None = None) -> list[str]:
        """What is wrong with a message to a client; `asked`: the method that it answers."""
        if "method" not in message:
            return self._answer(message, asked)
        method, params = message["method"], message.get("params")
        if method.startswith("mux/"):
            return extension_schemas.faults(method, "params", params)
        kind = "ServerRequest" if "id" in message else "ServerNotification"
        return self._params(kind, method, params)

    def up(self, message: Json, asked: str | None = None) -> list[str]:
        """What is wrong with a message to the app-server; `asked`: the method that it answers."""
        if "method" not in message:
            return self._answer(message, asked)
        kind = "ClientRequest" if "id" in message else "ClientNotification"
        return self._params(kind, message["method"], message.get("params"))

    def _params(self, kind: str, method: str, params: Any) -> list[str]:
        known = self._known(kind)
        if method not in known:
            return [f"{method}: no {kind}"]
        return self._faults(method, known[method], params)

    def _answer(self, message: Json, asked: str | None) -> list[str]:
        if "error" in message:
            code, data = str(message["error"].get("code")), message["error"].get("data")
            own = extension_schemas.faults("errors", code, data) if data is not None else []
            return own + self._faults(f"error to {asked}", ref("JSONRPCError"), message)
        assert asked is not None, f"an answer to nothing: {message}"
        named = self._result_of(asked)
        result = message["result"]
        if asked.startswith("mux/"):
            return extension_schemas.faults(asked, "result", result)
        if asked == "initialize" and "appmux" in result:
            own = extension_schemas.faults("initialize", "appmux", result["appmux"])
            return own + self._faults(asked, named, result)
        if asked == "turn/start" and "appmux" in result:
            part = "queued" if "queued" in result["appmux"] else "went"
            own = extension_schemas.faults("turn.start", part, result["appmux"])
            return own + (self._faults(asked, named, result) if part == "went" else [])
        return self._faults(f"result of {asked}", named, result)

    def _result_of(self, method: str) -> Json:
        """The schema of a result: its type is called like that of the params."""
        for kind in ("ClientRequest", "ServerRequest"):
            params = self._known(kind).get(method, {}).get("$ref", "")
            if params:
                return {"$ref": params.removesuffix("Params") + "Response"}
        return {}

    @functools.cache  # noqa: B019 (there is one judge)
    def _known(self, kind: str) -> dict[str, Json]:
        return self.bundle.params(kind)

    def _faults(self, what: str, schema: Json, value: Any) -> list[str]:
        found = self._validator(schema.get("$ref") or "").iter_errors(value) if schema else ()
        return [f"{what}{each.json_path[1:]}: {each.message[:200]}" for each in found]

    @functools.cache  # noqa: B019 (there is one judge)
    def _validator(self, reference: str) -> Draft7Validator:
        definitions = self.bundle.whole["definitions"]
        wanted = {"$ref": reference} if reference else {}
        return Draft7Validator({**wanted, "definitions": definitions})


def ref(name: str) -> Json:
    return {"$ref": f"#/definitions/{name}"}
