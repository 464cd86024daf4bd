"""Checks the page's types: `python -m tests.page.types`, which `make check` runs.

The types of the messages are codex's own, which the installed binary writes, and those of
docs/schema. So a change upstream, or of ours, that the page doesn't know shows here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from mux.config.codex_binary import find_codex
from tests.page.node import WEB, node

TYPES = WEB / ".types"


def main() -> None:
    """Make the types, and check the page against them. Ends with the checker's status."""
    if node() is None or not (WEB / "node_modules" / "typescript").is_dir():
        sys.stderr.write("The page's types aren't checked: run `make page` where npm is reached.\n")
        return
    shutil.rmtree(TYPES, ignore_errors=True)
    codex = [str(find_codex(None, os.environ)), "app-server", "generate-ts", "--experimental"]
    subprocess.run([*codex, "--out", str(TYPES / "codex")], check=True)
    subprocess.run([str(node()), "schema-types.mjs"], cwd=WEB, check=True)
    checker = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    sys.exit(
        subprocess.run([str(node()), str(checker), "--noEmit"], cwd=WEB, check=False).returncode
    )


if __name__ == "__main__":
    main()
