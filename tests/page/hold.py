"""Holds a runtime for a person who works on the page: `python -m tests.page.hold`.

A real broker and app-server with the stories' scripted model, filled with some threads.
"""

from __future__ import annotations

import sys

import trio

from tests.end_to_end.brokered import brokered
from tests.page.scenes import script
from tests.page.seeds import CONFIG, seed


async def main() -> None:
    """Serve until it is interrupted."""
    async with brokered(*sys.argv[1:], model=script(pace=0.04), config=CONFIG) as running:
        await seed(running)
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
