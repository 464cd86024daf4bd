"""Docstrings of the public part of ``mux``: nothing goes without, and each names its thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import mux

SOURCE: Final = Path(mux.__file__).parent

INHERITED: Final = frozenset(
    {
        # trio's streams
        "send_all", "wait_send_all_might_not_block", "receive_some", "send_eof", "aclose",
        # files
        "fileno", "isatty", "writable",
        # click's commands, parameters and errors
        "list_commands", "get_command", "resolve_command", "format_commands", "parse_args",
        "convert", "show",
    }
)  # fmt: skip
"""Methods that do what a library's interface says of them."""

NO_NOUN: Final = frozenset(
    {
        "what", "whether", "who", "whose", "whom", "which", "that", "where", "when", "how", "why",
        "it", "its", "one", "they", "them", "this", "these", "those", "there", "here", "for",
    }
)  # fmt: skip
"""Words that leave out what the sentence is about."""

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(file: Path) -> Iterator[tuple[str, Definition, bool]]:
    """Each definition with its place, and whether it is public."""
    module = ast.parse(file.read_text())
    where = str(file.relative_to(SOURCE))
    yield where, module, file.name != "__main__.py"
    waiting: list[tuple[Definition, bool]] = [(module, True)]
    while waiting:
        parent, public = waiting.pop()
        for node in parent.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                is_public = public and not node.name.startswith("_")
                yield f"{where}:{node.lineno} {node.name}", node, is_public
                if isinstance(node, ast.ClassDef):
                    waiting.append((node, is_public))


def undocumented(file: Path) -> list[str]:
    """Public definitions without a docstring."""
    return [
        where
        for where, node, public in _definitions(file)
        if public and getattr(node, "name", "") not in INHERITED and not ast.get_docstring(node)
    ]


def nameless(file: Path) -> list[str]:
    """Docstrings that begin with a word that stands for something else."""
    return [
        f"{where}: {text.partition(chr(10))[0]}"
        for where, node, _ in _definitions(file)
        if (text := ast.get_docstring(node)) and text.split()[0].strip("`,.;:").lower() in NO_NOUN
    ]


FILES: Final = sorted(SOURCE.rglob("*.py"))


def test_what_is_public_has_a_docstring() -> None:
    assert not [each for file in FILES for each in undocumented(file)]


def test_a_docstring_names_what_it_is_about() -> None:
    assert not [each for file in FILES for each in nameless(file)]


@pytest.mark.parametrize(
    ("source", "missing", "wrong"),
    [
        ('"""A module."""\ndef made() -> None: ...', 1, 0),
        ('"""A module."""\ndef _made() -> None: ...', 0, 0),
        ('"""A module."""\nclass Made:\n    """What was made."""\n    def use(self): ...', 1, 1),
        ('"""Whether it is made."""', 0, 1),
    ],
)
def test_what_is_missing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, missing: int, wrong: int
) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    file = tmp_path / "made.py"
    file.write_text(source)
    assert (len(undocumented(file)), len(nameless(file))) == (missing, wrong)
