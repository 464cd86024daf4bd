"""The architecture, as far as imports show it: ``docs/architecture.md`` says why.

The core decides and touches nothing outside itself; inside it, a layer imports what stands below
it. A folder of the shells imports the folders in its row of ``MAY_IMPORT``, and a file of it any
other file of the same folder. A new folder, or a new line between two folders, is a decision: it
is made here, where a reader sees them all.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "mux"

PURE_LIBRARIES = {"attr", "attrs", "msgspec"}
"""What the core may use beside the standard library: records and the JSON envelope."""

PURE_STDLIB = {
    "__future__", "abc", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "enum", "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "shlex",
    "string", "struct", "types", "typing",
}  # fmt: skip
"""What the core may use of the standard library: nothing that reads a clock, draws at random,
opens, sends, logs, waits, or knows the machine (os, sys, io, time, datetime, random, secrets, uuid,
logging, pathlib, socket, subprocess, threading, asyncio, …)."""

IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

FOR_EVERYONE = {"", "documents", "errors", "posix"}
"""What any shell may import: the version, the base of the errors, what the system gives."""

MOST_FILES = 16
"""Python files of one folder, its ``__init__.py`` among them: a list taken in at a glance."""

MOST_LINES = 400
"""Lines of one file: what one reads in one go."""

ANYTHING = {""}

MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": ANYTHING,
    "server": {
        "access", "config", "core", "dispatch", "downstream", "files", "host", "notices", "push",
        "storage", "supervisor.opening", "tailnet", "upstream", "web",
    },
    "host": {"access", "client", "config", "core", "downstream.sockets.unix_socket"},
    "downstream": {"access", "config", "core", "dispatch"},
    "tailnet": {"config", "core.part", "downstream", "host.steps", "storage", "text"},
    "web": {"access", "config", "core", "dispatch", "downstream", "files"},
    "files": {"core", "storage"},
    "notices": {"access", "config", "core", "dispatch", "push", "storage", "text"},
    "access": {"config", "core", "dispatch", "storage"},
    "push": {"config", "core.part", "storage"},
    "upstream": {
        "config", "core", "dispatch", "storage", "supervisor.channel", "supervisor.opening",
    },
    "storage": {"config", "core.part", "core.protocol"},
    "supervisor": set(),
    "stdio": {"config.codex_binary", "config.locate", "core.protocol"},
    "demo": {"client"},
    "dispatch": {"core"},
    "config": {"core"},
    "client": {"config.locate"},
    "documents": set(),
    "posix": set(),
    "text": set(),
}  # fmt: skip
"""What the files of a folder, or a file beside the folders, may import of the package."""

CORE_LAYERS: list[set[str]] = [
    {"reports"},
    {"broker"},
    {"routing"},
    {"wiring"},
    {"features"},
    {"audit"},
    {"state"},
    {"commands", "events", "extension"},
    {"policy"},
    {"limits", "part", "protocol"},
]
"""The core, top first: a layer imports only what stands below it."""

ROOMS: dict[str, dict[str, set[str]]] = {
    "core.features": {
        "handover": {"approvals", "lifecycle", "requests", "turns"},
        "turns": {"lifecycle", "requests"},
        "inbox": {"approvals", "clients", "notices", "requests"},
        "subscriptions": {"approvals", "requests"},
        "lifecycle": {"approvals", "clients", "requests"},
        "notices": {"approvals", "clients"},
        "approvals": {"clients", "history"},
        "clients": set(),
        "history": set(),
        "requests": set(),
    },
    "core.state": {
        "threads": {"clients", "durable", "turns"},
        "turns": {"requests"},
        "clients": {"durable", "requests"},
        "requests": {"durable"},
    },
    "core.protocol": {"threads": {"envelope"}, "envelope": set()},
    "downstream": {"http": {"sockets", "websocket"}, "websocket": set(), "sockets": set()},
    "server": {"observability": set()},
    "cli": {
        "doctor": {"common", "devices", "terminal"},
        "host": {"common", "devices", "terminal"},
        "devices": {"common", "completion", "terminal"},
        "threads": {"common", "completion", "terminal"},
        "oversight": {"common", "completion", "terminal"},
        "terminal": {"common"},
        "common": set(),
    },
}
"""The rooms of a folder, and which of its other rooms and files the files of each may import."""


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
    words = impure_words(source) if is_core(module) else looks_inside(source)
    return found + [f"{module}, line {line}: {wrong}" for line, wrong in words]


def folder(module: str) -> str:
    """The first name below ``mux``: a folder, or a file beside the folders."""
    return module.removeprefix("mux.").partition(".")[0] if module != "mux" else ""


def wrong_import(importer: str, imported: str) -> str | None:  # noqa: PLR0911 (one a rule)
    if imported.startswith("."):
        return "a relative import: write the whole name, so that a search finds it"
    if wrong := wrong_room(importer, imported):
        return wrong
    if is_core(importer):
        return wrong_in_core(importer, imported)
    name = folder(importer)
    ground = name in ("", "errors")
    if imported.partition(".")[0] != "mux" or (folder(imported) in FOR_EVERYONE and not ground):
        return None
    if ground:
        return f"{importer} may import nothing of the package: everything imports it"
    allowed, below = MAY_IMPORT.get(name, set()), imported.removeprefix("mux.")
    if name not in MAY_IMPORT:
        return f"{name} isn't in MAY_IMPORT: decide where it stands, and give it a line there"
    if below.startswith("core.state.state"):
        return f"{importer} may not know the core's state: ask the broker"
    if folder(imported) == name or allowed is ANYTHING:
        return None
    if any(below == each or below.startswith(f"{each}.") for each in allowed):
        return None
    return (
        f"{importer} may not import {imported}: pass what it needs as an argument, or move it"
        " below both, or decide otherwise in MAY_IMPORT"
    )


def layer(module: str) -> int | None:
    """The row of ``CORE_LAYERS`` that a module of the core stands in."""
    name = module.removeprefix("mux.core.").partition(".")[0]
    return next((row for row, names in enumerate(CORE_LAYERS) if name in names), None)


def room(folder: str, module: str) -> str | None:
    """The first name below ``folder``; None for a module elsewhere."""
    within = module.startswith(f"mux.{folder}.")
    return module.removeprefix(f"mux.{folder}.").partition(".")[0] if within else None


def wrong_room(importer: str, imported: str) -> str | None:
    for name, rooms in ROOMS.items():
        mine, other = room(name, importer), room(name, imported)
        if mine not in rooms or other is None or other == mine or other in rooms[mine]:
            continue
        return f"{importer} may not import {imported}: {mine} has no such line in ROOMS"
    return None


def wrong_in_core(importer: str, imported: str) -> str | None:
    top = imported.partition(".")[0]
    if is_core(imported):
        return wrong_layer(importer, imported)
    if top in PURE_LIBRARIES or top in PURE_STDLIB:
        return None
    if top == "mux":
        return f"the core may not know the shell {imported}: let a shell hand it over in an event"
    if top in sys.stdlib_module_names:
        return (
            f"the core may not import {imported}: time, randomness and the machine come to it in"
            " events; a module that has none of them may be added to PURE_STDLIB"
        )
    return f"the core may not import {imported}: of libraries it uses only attrs and msgspec"


def wrong_layer(importer: str, imported: str) -> str | None:
    above, below = layer(importer), layer(imported)
    if above is None:
        return f"{importer} isn't in CORE_LAYERS: decide where it stands, and give it a place there"
    mine, other = (
        each.removeprefix("mux.core.").partition(".")[0] for each in (importer, imported)
    )
    if below is not None and (mine == other or above < below):
        return None
    return f"{importer} may not import {imported}: it doesn't stand below it in CORE_LAYERS"


def impure_words(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "the core may not await: a decision is made at once"
        elif isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS:
            yield node.lineno, f"the core may not use {node.id}()"


def looks_inside(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "state":
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name.strip("_") == "broker":
                yield node.lineno, "a shell may not read the broker's state: ask the broker"


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    found = modules()
    wrong = faults(module, found[module].read_text(encoding="utf-8"), set(found))
    assert not wrong, "\n".join(wrong)


def test_every_folder_has_its_place() -> None:
    """Also one that imports nothing yet."""
    names = {folder(name) for name in modules()} - {"", "errors", "core"}
    assert names == MAY_IMPORT.keys()


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_has_its_line(name: str) -> None:
    rooms = {each.parent.name for each in PACKAGE.glob(f"{name.replace('.', '/')}/*/__init__.py")}
    assert rooms == ROOMS[name].keys()


def test_the_architecture_page_has_these_rules() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree, _, table = page.partition("## What may import what")
    table = table.partition("Inside the core")[0]
    entries = [each for each in PACKAGE.iterdir() if each.is_dir() or each.suffix == ".py"]
    shown = {word.rstrip("/") for word in tree.split()}
    assert {each.name for each in entries} - shown <= {"__init__.py", "__pycache__"}
    rows: dict[str, set[str]] = {}
    for line in re.sub(r"\n {9,}", " ", table).splitlines():  # a long row goes on in the next line
        if line.startswith("    "):
            names, row = re.split(r" {2,}", line.strip(), maxsplit=1)
            rows |= {name: set(row.split()) for name in names.split(", ")}
    in_words = {"cli": {"anything"}} | {
        name: {"nothing"} for name, row in MAY_IMPORT.items() if not row
    }
    assert rows | {"__main__": {"cli"}} == MAY_IMPORT | in_words
    layers = re.search(r"    reports.*?limits \}", page, re.DOTALL)
    assert layers is not None
    assert [set(re.findall(r"\w+", layer)) for layer in layers[0].split(">")] == CORE_LAYERS
    assert {name: rooms_of(page, name) for name in ROOMS} == ROOMS


def rooms_of(page: str, name: str) -> dict[str, set[str]]:
    """The table of ``name``'s rooms on the page: each room, and what it may import."""
    rooms: dict[str, set[str]] = {}
    for line in page.partition(f"| room of `{name.replace('.', '/')}/`")[2].splitlines()[2:]:
        if not line.startswith("| "):
            break
        mine, _, row = (re.findall(r"`(\w+)`", cell) for cell in line.strip("| ").split(" | "))
        rooms[mine[0]] = set(row)
    return rooms


def test_a_folder_says_what_it_is_and_costs_nothing() -> None:
    """Its ``__init__.py`` is a docstring of 15 lines at most: importing it runs no code."""
    for module, path in modules().items():
        if path.name != "__init__.py" or module == "mux":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        text = ast.get_docstring(tree)
        assert text, f"{module}: say what the folder is for"
        assert len(text.splitlines()) <= 15, f"{module}: {len(text.splitlines())} lines"
        assert len(tree.body) == 1, f"{module}: code in __init__.py, which a quick start would run"
        names = {each.stem for each in path.parent.glob("*.py")} - {"__init__"}
        named = set(re.findall(r"``([a-z0-9_]+)``", text))
        assert names <= named, f"{module}: say what these are for: {sorted(names - named)}"


def test_a_folder_can_be_seen_at_once() -> None:
    """What has more files gets rooms; what has more lines, a second file."""
    crowded = Counter(path.parent for path in modules().values())
    assert not {str(each): count for each, count in crowded.items() if count > MOST_FILES}
    lines = {name: path.read_text("utf-8").count("\n") for name, path in modules().items()}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


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
    """Between folders, too: an exact row (``config.locate``) counts for its whole folder."""
    graph = {name: {folder(each) for each in row} - {""} for name, row in MAY_IMPORT.items()}
    graph["core"] = set()
    assert not circle({**graph, "cli": graph.keys() - {"cli", "__main__"}})
    assert not [name for name, rooms in ROOMS.items() if circle(rooms)]


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
        ("mux.core.x", "from mux.config import model", "the shell mux.config"),
        ("mux.core.x", "from . import y", "relative import"),
        ("mux.core.x", "async def f(): ...", "may not await"),
        ("mux.core.x", "f = open('y')", "may not use open()"),
        ("mux.core.x", "from mux.core.limits import L", "mux.core.x isn't in CORE_LAYERS"),
        ("mux.core.state.x", "from mux.core import broker", "it doesn't stand below it"),
        ("mux.core.events", "from mux.core import commands", "it doesn't stand below it"),
        ("mux.core.features.turns.x", "from mux.core.features.inbox import y", "line in ROOMS"),
        ("mux.cli.terminal.x", "from mux.cli.oversight.status import x", "line in ROOMS"),
        ("mux.core.features.clients.x", "import mux.core.features.turns.y", "line in ROOMS"),
        ("mux.access.x", "from mux.downstream.y import Y", "mux.access.x may not import mux.down"),
        ("mux.access.x", "from mux import downstream", "mux.access.x may not import mux.downstre"),
        ("mux.access.x", "import mux.cli", "mux.access.x may not import mux.cli"),
        ("mux.storage.x", "from mux.core.state import journal", "may not import mux.core.state"),
        ("mux.access.x", "from mux.core.state.state import State", "ask the broker"),
        ("mux.access.x", "f(self.dispatcher.broker.state.clients)", "may not read the broker's"),
        ("mux.server.x", "state = broker.state", "may not read the broker's"),
        ("mux.errors", "import mux.cli", "mux.errors may import nothing"),
        ("mux", "import mux.cli", "mux may import nothing"),
        ("mux.novel.x", "import mux.access", "novel isn't in MAY_IMPORT"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, told: str) -> None:
    (wrong,) = faults(module, source, {"mux.access", "mux.downstream", "mux.server"})
    assert told in wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mux.core.state.x", "import collections.abc, attrs, msgspec\nfrom mux.core import policy"),
        ("mux.core.state.x", "from mux.core.state.y import Y\nfrom mux.core.limits import Limits"),
        ("mux.cli.terminal.x", "from mux.cli.common import options"),
        ("mux.core.features.turns.x", "from mux.core.features.lifecycle import y"),
        ("mux.core.features.turns.x", "from mux.core.features.turns.y import Y"),
        ("mux.access.x", "import os, jwt\nfrom mux.core.policy.principal import P"),
        ("mux.access.x", "from mux.access.y import Y\nfrom mux.errors import AppmuxError"),
        ("mux.server.x", "from mux import __version__, access"),
        ("mux.stdio.x", "from mux.config import locate"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    known = {"mux.access", "mux.config.locate", "mux.core.policy"}
    assert not faults(module, source, known)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
