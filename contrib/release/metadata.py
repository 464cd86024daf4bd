"""Puts the project's addresses into the package's metadata: a hook of hatchling's.

They are made from the one constant `HOMEPAGE` of `mux/documents.py`. While that is empty there are
none.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT: Final = Path(__file__).resolve().parents[2]
CONSTANT: Final = re.compile(r'^HOMEPAGE: Final = "([^"]*)"$', re.MULTILINE)


def homepage(source: str) -> str:
    """Return the constant by the text of `mux/documents.py`, without importing the package."""
    found = CONSTANT.search(source)
    if found is None:
        raise ValueError('mux/documents.py has no line `HOMEPAGE: Final = "…"`')
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


class AddressHook(MetadataHookInterface):
    """Adds the addresses when the package is built or installed."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set what `pyproject.toml` leaves open."""
        metadata["urls"] = urls(homepage((ROOT / "mux" / "documents.py").read_text()))
