"""Puts the project's addresses and its README into the package's metadata: a hook of hatchling's.

The addresses are made from the one constant `HOMEPAGE` of `mux/documents.py`. While that is empty
there are none. An index of packages shows the README without the files beside it, so its relative
links and pictures get whole addresses here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT: Final = Path(__file__).resolve().parents[2]
CONSTANT: Final = re.compile(r'^HOMEPAGE: Final = "([^"]*)"$', re.MULTILINE)
VERSION: Final = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)

FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
ABSOLUTE: Final = r"(?![a-z]+:|#)"
PICTURE: Final = re.compile(rf'(!\[[^\]]*\]\(|<img src="){ABSOLUTE}([^)"\s]+)')
LINK: Final = re.compile(rf"(?<!!)\[([^\]]*)\]\({ABSOLUTE}([^)\s]+)\)")
PICTURES_ALONE: Final = re.compile(r"(?:(?:!\[[^\]]*\]\([^)]*\)|<img [^>]*>)\s*)+")


def homepage(source: str) -> str:
    """Return the constant by the text of `mux/documents.py`, without importing the package."""
    found = CONSTANT.search(source)
    if found is None:
        raise ValueError('mux/documents.py has no line `HOMEPAGE: Final = "…"`')
    return found[1]


def version(source: str) -> str:
    """Return the version by the text of `mux/__init__.py`, without importing the package."""
    found = VERSION.search(source)
    if found is None:
        raise ValueError('mux/__init__.py has no line `__version__ = "…"`')
    return found[1]


def urls(home: str) -> dict[str, str]:
    """Return the addresses that the metadata name."""
    if not home:
        return {}
    return {
        "Homepage": home,
        "Documentation": f"{home}/tree/HEAD/docs",
        "Changelog": f"{home}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }


def description(readme: str, home: str, tag: str) -> str:
    """Return the README as a place without our files can show it.

    `tag` names the version's files at `home`. Without a `home` a link becomes its text and its
    path, and pictures are left out, with the sentence that announces them.
    """
    parts = FENCED.split(readme)
    parts[::2] = [_whole(part, home, tag) if home else _alone(part) for part in parts[::2]]
    return "".join(parts)


def _whole(text: str, home: str, tag: str) -> str:
    text = PICTURE.sub(rf"\g<1>{home}/raw/{tag}/\g<2>", text)
    return LINK.sub(rf"[\g<1>]({home}/blob/{tag}/\g<2>)", text)


def _alone(text: str) -> str:
    kept: list[str] = []
    for paragraph in text.split("\n\n"):
        if not (PICTURES_ALONE.fullmatch(paragraph) and PICTURE.search(paragraph)):
            kept.append(paragraph)
        elif kept and kept[-1].endswith(":"):
            kept.pop()
    return LINK.sub(r"\g<1> (`\g<2>`)", "\n\n".join(kept))


class MetadataHook(MetadataHookInterface):
    """Adds addresses and README when the package is built or installed."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set what `pyproject.toml` leaves open."""
        home = homepage((ROOT / "mux" / "documents.py").read_text())
        tag = f"v{version((ROOT / 'mux' / '__init__.py').read_text())}"
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        metadata["urls"] = urls(home)
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": description(readme, home, tag),
        }
