"""The architecture, as far as imports show it: ``docs/architecture.md`` says why.

The core decides and touches nothing outside itself. Shells know what stands below them, never what
stands above or beside. A new module, or a new line between two modules, is a decision: it is made
in ``MAY_IMPORT``, where a reader sees them all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "mux"

PURE_LIBRARIES = {"attr", "attrs", "msgspec"}
"""What the core may use beside the standard library: records and the JSON envelope."""

PURE_STDLIB = {
    "__future__",
    "abc",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "shlex",
    "string",
    "struct",
    "types",
    "typing",
}
"""What the core may use of the standard library: nothing that reads a clock, draws at random,
opens, sends, logs, waits, or knows the machine (os, sys, io, time, datetime, random, secrets, uuid,
logging, pathlib, socket, subprocess, threading, asyncio, …)."""

IMPURE_BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

FOR_EVERYONE = {"mux", "mux.config", "mux.errors"}
"""What any shell may import: the version, the errors, the settings. And all of ``mux.core``."""

MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"entry"},
    "entry": {"cli", "output", "standard_streams", "stdio"},
    "cli": {
        "cli_devices",
        "cli_oversight",
        "cli_service",
        "codex",
        "demo",
        "listener",
        "logs",
        "output",
        "reach",
        "restart",
        "server",
        "settings",
        "status",
        "stderr",
        "stdio",
    },
    "cli_service": {
        "cli_devices",
        "codex",
        "codex_version",
        "doctor",
        "login",
        "novascale",
        "occupant",
        "pair",
        "service",
        "settings",
        "setup",
        "steps",
        "tailnet",
        "takeover",
    },
    "cli_oversight": {"approving", "audit_shown", "notices_shown", "settings"},
    "notices_shown": {"client", "shown", "statedir"},
    "approving": {"client", "shown", "statedir"},
    "audit_shown": {"audit", "chain", "shown"},
    "shown": set(),
    "cli_devices": {"device_list", "pair", "settings"},
    "pair": {"client", "invitation", "statedir", "tailnet"},
    "invitation": {"tailnet"},
    "device_list": {"client", "statedir"},
    "setup": {"codex", "listener", "novascale", "ready", "service", "settings", "steps"},
    "doctor": {"checks_broker", "checks_host", "checks_push", "finding", "settings"},
    "checks_push": {
        "finding",
        "push.apns",
        "push.fcm",
        "push.keyfile",
        "push.vapid",
        "push.web",
        "push.webhook",
    },
    "checks_host": {
        "codex",
        "codex_version",
        "finding",
        "login",
        "novascale",
        "service",
        "settings",
        "steps",
    },
    "checks_broker": {
        "client",
        "codex",
        "finding",
        "holders",
        "listener",
        "occupant",
        "reach",
        "ready",
        "statedir",
        "status",
    },
    "finding": set(),
    "novascale": {"devices", "launchd", "privatefile", "steps", "systemd"},
    "service": {
        "codex",
        "holders",
        "launchd",
        "listener",
        "occupant",
        "settings",
        "steps",
        "systemd",
        "templates",
    },
    "launchd": {"steps", "systemd", "templates"},
    "systemd": {"steps", "templates"},
    "templates": set(),
    "ready": {"codex", "listener", "reach"},
    "holders": {"steps"},
    "login": {"steps"},
    "tailnet": {"steps"},
    "steps": set(),
    "demo": {"client", "demo_picture", "demo_stage", "scripted_model"},
    "demo_picture": set(),
    "demo_stage": {"scripted_model"},
    "status": {"client", "shown", "statedir"},
    "restart": {"client", "statedir"},
    "server": {
        "access",
        "audit",
        "auth",
        "codex",
        "codex_schema",
        "descriptors",
        "devices",
        "directories",
        "dispatcher",
        "door",
        "downstream",
        "failures",
        "listener",
        "metrics",
        "notices.asked",
        "notices.lockscreen",
        "occupant",
        "outbox",
        "statedir",
        "stderr",
        "store",
        "streams",
        "takeover",
        "terminal",
        "tls",
        "unauthenticated",
        "upstream",
        "watchdog",
    },
    "notices": set(),
    "notices.asked": {
        "devices",
        "dispatcher",
        "notices.ledger",
        "notices.noticing",
        "notices.wishes",
        "push.endpoints",
        "push.sender",
    },
    "notices.noticing": {
        "devices",
        "dispatcher",
        "notices",
        "notices.ledger",
        "notices.tickets",
        "notices.wishes",
        "notices.wording",
        "push.endpoints",
        "push.push",
        "push.sender",
    },
    "notices.wording": {"push", "push.push", "shown"},
    "notices.lockscreen": {"notices.noticing", "notices.tickets", "pairing"},
    "notices.tickets": set(),
    "notices.wishes": {"wholefile", "write_behind"},
    "notices.ledger": {"database"},
    "metrics": {
        "audit",
        "devices",
        "dispatcher",
        "door",
        "failures",
        "push.queue",
        "push.sender",
        "stderr",
        "store",
        "upstream",
    },
    "times": set(),
    "watchdog": set(),
    "listener": {"reach", "socketpath", "streams", "tls", "unauthenticated"},
    "unauthenticated": {"descriptors", "failures"},
    "descriptors": set(),
    "socketpath": {"privatefile", "reach"},
    "occupant": {"holders"},
    "takeover": {"client", "occupant", "socketpath"},
    "streams": set(),
    "tls": {"privatefile"},
    "door": {"auth", "failures", "http_request", "pairing", "posts"},
    "posts": {"failures", "http_request", "pairing"},
    "http_request": {"failures", "streams"},
    "auth": {"devices", "privatefile"},
    "failures": set(),
    "access": {"devices", "dispatcher", "pairing"},
    "pairing": {"devices"},
    "devices": {"privatefile", "wholefile", "write_behind"},
    "write_behind": {"privatefile", "wholefile"},
    "wholefile": {"errors", "privatefile"},
    "privatefile": set(),
    "downstream": {"dispatcher", "door", "frames", "outbox", "rates", "streams"},
    "frames": set(),
    "upstream": {"codex", "descriptors", "dispatcher", "outbox"},
    "rates": set(),
    "dispatcher": {"outbox"},
    "directories": set(),
    "outbox": set(),
    "audit": {"audit_writer", "chain"},
    "audit_writer": {"chain", "privatefile", "wholefile"},
    "chain": {"privatefile"},
    "push": set(),
    "push.push": set(),
    "push.outcome": set(),
    "push.addresses": {"push.endpoints", "push.push"},
    "push.endpoints": {"push.push", "wholefile", "write_behind"},
    "push.queue": {"push.endpoints", "push.outcome", "push.push"},
    "push.queue_file": {"database", "push.push", "push.queue"},
    "push.keeper": {"database", "push.queue", "push.queue_file"},
    "push.sender": {
        "push.addresses",
        "push.endpoints",
        "push.keeper",
        "push.outcome",
        "push.push",
        "push.queue",
        "push.queue_file",
        "push.services",
        "push.vapid",
    },
    "push.services": {
        "push.apns",
        "push.endpoints",
        "push.exec",
        "push.fcm",
        "push.ntfy",
        "push.outcome",
        "push.push",
        "push.unifiedpush",
        "push.web",
        "push.webhook",
        "push.webpush",
    },
    "push.web": {"push.addresses", "push.outcome", "push.push"},
    "push.keyfile": {"privatefile", "push.push"},
    "push.apns": {"push.endpoints", "push.keyfile", "push.outcome", "push.push", "push.web"},
    "push.fcm": {"push.endpoints", "push.keyfile", "push.outcome", "push.push", "push.web"},
    "push.webpush": {
        "push.addresses",
        "push.encryption",
        "push.endpoints",
        "push.outcome",
        "push.push",
        "push.vapid",
        "push.web",
    },
    "push.encryption": set(),
    "push.vapid": {"privatefile", "push.encryption", "push.keyfile", "push.push", "wholefile"},
    "push.unifiedpush": {
        "push.encryption",
        "push.endpoints",
        "push.outcome",
        "push.push",
        "push.web",
        "push.webpush",
    },
    "push.ntfy": {"push.endpoints", "push.keyfile", "push.outcome", "push.push", "push.web"},
    "push.webhook": {"push.endpoints", "push.keyfile", "push.outcome", "push.push", "push.web"},
    "push.exec": {"descriptors", "push.endpoints", "push.outcome", "push.push", "push.web"},
    "store": {"chunks", "database", "recorder", "schema", "times"},
    "recorder": {"chunks", "database", "schema"},
    "chunks": {"database", "schema"},
    "schema": {"database"},
    "database": {"privatefile"},
    "stand_in": {"codex", "reach", "standard_streams", "stdio"},
    "stdio": {"reach", "standard_streams", "stdio_lines", "stdio_memory", "stdio_wire"},
    "stdio_lines": set(),
    "stdio_memory": {"stdio_reading"},
    "stdio_reading": set(),
    "stdio_wire": set(),
    "reach": {"codex", "privatefile"},
    "client": {"reach"},
    "codex": set(),
    "codex_schema": {"codex", "codex_version", "privatefile", "wholefile"},
    "codex_version": {"codex"},
    "logs": {"stderr"},
    "stderr": {"standard_streams"},
    "standard_streams": set(),
    "terminal": set(),
    "statedir": {"privatefile", "reach", "wholefile"},
    "settings": {"rule_settings"},
    "rule_settings": set(),
    "config": set(),
    "errors": set(),
    "__init__": set(),
    "scripted_model": {"scripted_steps"},
    "scripted_steps": set(),
    "output": set(),
}


@attrs.frozen
class Import:
    """One module named by an import statement, and its line."""

    module: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package by its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, known: set[str]) -> Iterator[Import]:
    """What ``source`` imports, wherever it does: at its top, in a function, for type checking."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                yield Import("." * node.level + (node.module or ""), node.lineno)
                continue
            for alias in node.names:  # `from mux import x` may mean the module mux.x
                inner = f"{node.module}.{alias.name}"
                yield Import(inner if inner in known else node.module, node.lineno)


def is_core(module: str) -> bool:
    return module == "mux.core" or module.startswith("mux.core.")


def faults(module: str, source: str, known: set[str]) -> list[str]:
    """What is wrong with the imports of ``module``, each with its line and what to do."""
    found = [
        f"{module}, line {each.line}: {wrong}"
        for each in imports(source, known)
        if (wrong := wrong_import(module, each.module))
    ]
    if is_core(module):
        found += [f"{module}, line {line}: {wrong}" for line, wrong in impure_words(source)]
    return found


def wrong_import(importer: str, imported: str) -> str | None:
    if imported.startswith("."):
        return "a relative import: write the whole name, so that a search finds it"
    if is_core(importer):
        return wrong_in_core(imported)
    if imported.partition(".")[0] != "mux" or is_core(imported) or imported in FOR_EVERYONE:
        return None
    name = importer.removeprefix("mux.") if importer != "mux" else "__init__"
    allowed = MAY_IMPORT.get(name)
    if allowed is None:
        return f"{importer} isn't in MAY_IMPORT: decide where it stands, and give it a line there"
    if imported.removeprefix("mux.") in allowed:
        return None
    return (
        f"{importer} may not import {imported}: pass what it needs as an argument, or move it"
        " below both, or decide otherwise in MAY_IMPORT"
    )


def wrong_in_core(imported: str) -> str | None:
    top = imported.partition(".")[0]
    if is_core(imported) or top in PURE_LIBRARIES or top in PURE_STDLIB:
        return None
    if top == "mux":
        return f"the core may not know the shell {imported}: let a shell hand it over in an event"
    if top in sys.stdlib_module_names:
        return (
            f"the core may not import {imported}: time, randomness and the machine come to it in"
            " events; a module that has none of them may be added to PURE_STDLIB"
        )
    return f"the core may not import {imported}: of libraries it uses only attrs and msgspec"


def impure_words(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "the core may not await: a decision is made at once"
        elif isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS:
            yield node.lineno, f"the core may not use {node.id}()"


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    found = modules()
    wrong = faults(module, found[module].read_text(encoding="utf-8"), set(found))
    assert not wrong, "\n".join(wrong)


def test_every_shell_has_its_place() -> None:
    """Also one that imports nothing yet."""
    shells = {name.removeprefix("mux.") for name in modules() if not is_core(name)} - {"mux"}
    placeless = shells - MAY_IMPORT.keys()
    assert not placeless, f"give each its line in MAY_IMPORT: {', '.join(sorted(placeless))}"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along one circle of ``graph``, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for below in sorted(graph.get(name, ())):
            if found := walk(below, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_what_is_allowed_has_no_circle() -> None:
    assert not circle(MAY_IMPORT)


def test_what_is_imported_has_no_circle() -> None:
    found = modules()
    graph = {
        name: {each.module for each in imports(path.read_text(encoding="utf-8"), set(found))}
        & found.keys()
        for name, path in found.items()
    }
    assert not circle(graph)


@pytest.mark.parametrize(
    ("module", "source", "told"),
    [
        ("mux.core.x", "import trio", "only attrs and msgspec"),
        ("mux.core.x", "from os import path", "come to it in events"),
        ("mux.core.x", "def f():\n    import time", "line 2"),
        ("mux.core.x", "if TYPE_CHECKING:\n    from mux import server", "the shell mux.server"),
        ("mux.core.x", "from mux.config import Config", "the shell mux.config"),
        ("mux.core.x", "from . import y", "relative import"),
        ("mux.core.x", "async def f(): ...", "may not await"),
        ("mux.core.x", "f = open('y')", "may not use open()"),
        ("mux.auth", "from mux.listener import Listener", "mux.auth may not import mux.listener"),
        ("mux.auth", "from mux import listener", "mux.auth may not import mux.listener"),
        ("mux.auth", "import mux.cli", "mux.auth may not import mux.cli"),
        ("mux.errors", "import mux.cli", "mux.errors may not import mux.cli"),
        ("mux", "import mux.cli", "mux may not import mux.cli"),
        ("mux.novel", "import mux.auth", "mux.novel isn't in MAY_IMPORT"),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, told: str) -> None:
    (wrong,) = faults(module, source, {"mux.listener", "mux.server"})
    assert told in wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mux.core.x", "import collections.abc, attrs, msgspec\nfrom mux.core import y"),
        ("mux.auth", "import os, jwt\nfrom mux.core.principal import P\nfrom mux import config"),
        ("mux.server", "from mux import __version__, listener"),
    ],
)
def test_the_rules_can_be_kept(module: str, source: str) -> None:
    assert not faults(module, source, {"mux.listener", "mux.config"})


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c", "d"}, "d": {"b"}}) == ["b", "d", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
