"""``appmux`` without a supervisor, for `handovers` to measure against. Not for use.

There is no next broker, so nothing is saved for one. Run as ``python -m bench.unsaved serve …``.
"""

from __future__ import annotations

from mux.cli.main import main

if __name__ == "__main__":
    main()
