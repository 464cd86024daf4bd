"""appmux as another checkout has it installed: a copy of the package that a test may replace.

Hands to: the tests and soaks of upgrades. Hears from: the package in this checkout.
"""

from __future__ import annotations

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

    def install(self, version: str) -> None:
        """Put this version in the place of the one that is there, file by file, as pip does."""
        package = self.place / PACKAGE.name
        shutil.rmtree(package, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, package, ignore=ignored)
        start = package / "__init__.py"
        text = start.read_text()
        assert f'"{mux.__version__}"' in text
        start.write_text(text.replace(f'"{mux.__version__}"', f'"{version}"'))
