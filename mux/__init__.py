"""appmux: one ``codex app-server``, shared by any number of clients.

Start reading at ``server``; ``cli`` is how a person gets there.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("appserver-mux")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0+uninstalled"
