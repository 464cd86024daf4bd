"""The service files as they are shipped, and what is filled into them.

The only source is ``contrib/`` of the project; a wheel carries the same files as ``mux/contrib/``.

Hands to: ``systemd`` and ``launchd``, a ``Template``. Hears from: ``service``, what is ``Wanted``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

MARKER: Final = "(appmux-service)"
"""Stands in every file that `appmux service install` writes. What lacks it is somebody else's."""

_HOLE: Final = re.compile(r"@([A-Z_]+)@")


@attrs.frozen
class Wanted:
    """One service: what runs, with which environment, at which sockets.

    ``command`` has an absolute program; ``sockets`` are in systemd's notation (``IP:PORT``, or a
    path); ``stop_seconds`` is the time to drain. ``log`` is where launchd puts stderr.
    """

    command: tuple[str, ...]
    environ: dict[str, str]
    environment_file: Path
    sockets: tuple[str, ...]
    stop_seconds: int
    hardened: bool
    log: Path


@attrs.frozen
class Template:
    """A file with ``@HOLES@``."""

    text: str

    def fill(self, **words: str) -> str:
        """The file. Raises ``KeyError`` for a hole without a word."""
        return _HOLE.sub(lambda hole: words[hole[1]], self.text)


def template(kind: str, name: str) -> Template:
    """The shipped file ``contrib/KIND/NAME``."""
    here = Path(__file__).parent.parent
    shipped = here / "contrib" / kind / name
    path = shipped if shipped.exists() else here.parent / "contrib" / kind / name
    return Template(path.read_text(encoding="utf-8"))
