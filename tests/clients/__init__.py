"""Programs of others that speak to `codex app-server`, unmodified and pinned.

`make test-clients` installs them: those of npm in `node_modules` here, those of PyPI in an
environment of their own, as they pin other versions of what we use. Where a registry isn't reached,
the tests of its programs say so and are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.page.node import node as find_node

HERE: Final = Path(__file__).parent
NODE_MODULES: Final = HERE / "node_modules"
PYTHON: Final = HERE.parents[1] / ".venv-clients" / "bin" / "python"
STORIES: Final = HERE / "stories"

HOW: Final = "`make test-clients` installs it"


def missing(*, node: str = "", python: str = "") -> str:
    """Return why a client can't be run: a package of npm or of PyPI; empty if it can."""
    if node:
        if find_node() is None:
            return "node isn't there"
        if not (NODE_MODULES / node / "package.json").exists():
            return f"{node} isn't there: {HOW}"
    if python and not any(PYTHON.parents[1].glob(f"lib/python3*/site-packages/{python}")):
        return f"{python} isn't there: {HOW}"
    return ""
