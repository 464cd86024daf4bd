"""appmux: one ``codex app-server``, shared by any number of clients.

Start reading at ``server``; ``cli`` is how a person gets there.
"""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    # Looked up when somebody asks: it costs 30 ms, and the stdio door has 150 to be attached.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("appserver-mux")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0+uninstalled"
