"""Addresses of the project, and of its documents for people."""

from __future__ import annotations

from typing import Final

import mux

HOMEPAGE: Final = ""
"""The repository's address, as https://HOST/OWNER/appmux; empty while there is none to name.

It stands here alone. The package's metadata (``contrib/release/metadata.py``), the site, the files
for other packagers and what commands print are made from it.
"""


def page(name: str, homepage: str = HOMEPAGE) -> str:
    """Return where a page of ``docs/`` is: a link of this version, or its path in the clone."""
    path = f"docs/{name}.md"
    return f"{homepage}/blob/v{mux.__version__}/{path}" if homepage else path
