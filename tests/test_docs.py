"""What the documents name is there: links, commands, settings, and the page that lists these."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import click
import pytest

from mux.cli.main import appmux
from mux.config.model import leaves, sections
from tests import commands_page, settings_page

ROOT: Final = Path(__file__).parents[1]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_COMMAND = re.compile(r"(?:^ {4,}|`|\$\()appmux ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", re.MULTILINE)


def _documents() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # an unpacked sdist
        return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    return [ROOT / name for name in done.stdout.splitlines()]


DOCUMENTS: Final = _documents()


def _anchors(document: Path) -> set[str]:
    """Return the names by which a link reaches the headings of a document."""
    headings = _HEADING.findall(document.read_text())
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(document.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = unquote(link).partition("#")
        there = (document.parent / name) if name else document
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            broken.append(link)
    assert broken == []


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        yield name
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {each}" for each in _commands(command, context))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_is_there(document: Path) -> None:
    known = set(_commands(appmux, click.Context(appmux)))
    groups = {each.split()[0] for each in known if " " in each}
    named = {" ".join(each.split()) for each in _COMMAND.findall(document.read_text())}
    wrong = []
    for command in named:
        first, _, second = command.partition(" ")
        if first not in known or (second and first in groups and command not in known):
            wrong.append(command)
    assert wrong == []


def test_the_page_of_settings_is_in_step() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "`make settings` writes it"


def test_the_page_of_commands_is_in_step() -> None:
    assert commands_page.PAGE.read_text() == commands_page.page(), "`make commands` writes it"


def test_the_page_of_settings_has_them_all() -> None:
    text = settings_page.PAGE.read_text()
    assert [key for key in leaves() if f"| `{key}` |" not in text] == []
    assert [name for name in sections() if f"## `[{name}]`" not in text] == []
