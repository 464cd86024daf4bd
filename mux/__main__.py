"""``python -m mux``: the same as the ``appmux`` command.

Hands to: ``cli``.
"""

from __future__ import annotations

from mux.cli import main

if __name__ == "__main__":
    main()
