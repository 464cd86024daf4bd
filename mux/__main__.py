"""``python -m mux``: the same as the ``appmux`` command.

Hands to: ``entry``.
"""

from __future__ import annotations

from mux.cli.entry import main

if __name__ == "__main__":
    main()
