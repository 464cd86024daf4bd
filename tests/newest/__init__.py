"""The newest codex, which npm installs here (`make newest`) for the conformance stories.

Its version is pinned in one place, `package.json`; `package-lock.json` holds the digests.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
VERSION: Final[str] = json.loads((HERE / "package.json").read_text())["dependencies"][
    "@openai/codex"
]


def newest_codex() -> Path | None:
    """Return the binary of the newest codex; None where npm could not install it."""
    # npm unpacks the binary of this platform alone, under a name of the platform's.
    found = HERE.glob("node_modules/@openai/codex-*/vendor/*/bin/codex")
    return next(iter(sorted(found)), None)


def version_of(codex: Path) -> str:
    """Return the version that a codex binary says of itself (`0.171.0`)."""
    said = subprocess.run([codex, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1]
