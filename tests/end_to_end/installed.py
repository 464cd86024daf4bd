"""appmux as another checkout has it installed: a copy of the package that a test may replace.

Hands to: the tests and soaks of upgrades. Hears from: the package in this checkout.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import attrs

import mux

PACKAGE: Final = Path(mux.__file__).parent


@attrs.frozen
class Installed:
    """A directory for `PYTHONPATH`, with a copy of the package of a version of its own."""

    place: Path

    @property
    def environ(self) -> dict[str, str]:
        """What has a program use this copy."""
        return {"PYTHONPATH": str(self.place)}

    def install(self, version: str, source: Path = PACKAGE) -> None:
        """Put a checkout's package, as this version, in the place of the one that is there.

        The old files go first, and the new ones come one by one, as with pip.
        """
        package = self.place / PACKAGE.name
        shutil.rmtree(package, ignore_errors=True)  # a running program may add bytecode meanwhile
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, package, ignore=ignored, dirs_exist_ok=True)
        start = package / "__init__.py"
        text, changed = re.subn(
            r'__version__ = "[^"]+"', f'__version__ = "{version}"', start.read_text()
        )
        assert changed
        start.write_text(text)
