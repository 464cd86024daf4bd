"""appmux: one ``codex app-server``, shared by any number of clients.

Start reading at ``server``; ``cli`` is how a person gets there.
"""

from __future__ import annotations

__version__ = "0.1.0"
"""The package's too, which is built from here: to look it up in an installation's takes 20 ms."""
