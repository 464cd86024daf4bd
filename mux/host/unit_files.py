"""The service files as they are shipped, and the values that fill them.

The only source is ``contrib/`` of the project; a wheel carries the same files as ``mux/contrib/``.

Used by ``systemd`` and ``launchd``; ``service`` makes the ``ServiceSpec``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

MARKER: Final = "(appmux-service)"
"""Part of every file that `appmux service install` writes. A file without it is somebody else's."""

_HOLE: Final = re.compile(r"@([A-Z_]+)@")


@attrs.frozen
class ServiceSpec:
    """A service to install: what runs, with which environment, at which sockets."""

    command: tuple[str, ...]
    """Begins with an absolute path."""
    environ: dict[str, str]
    environment_file: Path
    sockets: tuple[str, ...]
    """In systemd's notation: ``IP:PORT``, or a path."""
    stop_seconds: int
    """Time to drain."""
    hardened: bool
    log: Path
    """The file to which launchd writes stderr."""


@attrs.frozen
class Template:
    """A file with ``@HOLES@``."""

    text: str

    def fill(self, **words: str) -> str:
        """Return the filled file. Raises ``KeyError`` for a hole without a word."""
        return _HOLE.sub(lambda hole: words[hole[1]], self.text)


def template(kind: str, name: str) -> Template:
    """Read the shipped file ``contrib/KIND/NAME``."""
    here = Path(__file__).parent.parent
    shipped = here / "contrib" / kind / name
    path = shipped if shipped.exists() else here.parent / "contrib" / kind / name
    return Template(path.read_text(encoding="utf-8"))
