"""What the documents name is there: links, commands, settings, and the page that lists these."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import click
import pytest

from mux.cli.main import appmux
from mux.config.load import ConfigError, load
from mux.config.model import Config, leaves, sections
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


_NUMBER = re.compile(
    r"^\| `(?P<key>[\w.]+)` \| [^|]+ \| "
    r"(?:above (?P<above>\d+)|(?:at least )?(?P<least>\d+)(?= to|;| \|))?"
    r"(?:(?:, at most| to) (?P<most>[\d,]+))?"
    r"(?:; at most `(?P<below>[\w.]+)`)?"
    r"(?:(?:; )?at least `(?P<over>[\w.]+)`)?(?:; `--[\w-]+`)? \|",
    re.MULTILINE,
)
_NUMBERS: Final = list(_NUMBER.finditer(settings_page.PAGE.read_text()))


def test_the_page_of_settings_tells_the_range_of_each_number() -> None:
    told = [found["key"] for found in _NUMBERS]
    assert told == [key for key, leaf in leaves().items() if leaf.plain in (int, float)]


@pytest.mark.parametrize("told", _NUMBERS, ids=lambda found: str(found["key"]))
def test_the_range_that_is_told_is_the_one_that_is_taken(
    told: re.Match[str], tmp_path: Path
) -> None:
    """The smallest and the greatest number are settled as they are; one beyond is refused."""
    key, greatest = told["key"], float((told["most"] or "inf").replace(",", ""))
    file = tmp_path / "config.toml"

    def settled(number: float, other: str | None = None) -> float:
        file.write_text(f"{key} = {number!r}\n" + (f"{other} = {number!r}\n" if other else ""))
        return float(_at(load({}, {}, file).config, key))

    def refused(number: float, other: str | None = None) -> bool:
        with pytest.raises(ConfigError, match=re.escape(key)):
            settled(number, other)
        return True

    if told["above"] is not None:
        over, least = float(told["above"]), math.nextafter(float(told["above"]), math.inf)
        assert settled(least) == least
        assert refused(over)
        assert refused(-least)
        assert settled(greatest) == greatest
        assert refused(math.nextafter(greatest, math.inf))
        return
    least = int(told["least"] or 1)
    assert settled(least, told["over"]) == least
    assert refused(least - 1)
    assert refused(least + 0.5)
    if told["most"]:
        assert settled(int(greatest)) == greatest
        assert refused(int(greatest) + 1)
    if told["below"]:  # no more than another one
        most = int(_at(Config(), told["below"]))
        assert settled(most) == most
        assert refused(most + 1)
        assert settled(most + 1, told["below"]) == most + 1
    if told["over"]:
        assert refused(int(_at(Config(), told["over"])) - 1)


def _at(config: object, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config
