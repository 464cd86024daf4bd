"""An MCP server over stdio that isn't ready before a file is there: for threads that start slowly.

Run as a script by the app-server, with the file's path; it speaks as little of MCP as that takes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.02


def main(go: Path) -> None:
    """Answer each line of stdin until it ends, the first one when `go` is there.

    Who started it may be gone before that: then nobody waits any more.
    """
    parent = os.getppid()
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                while not go.exists():
                    if os.getppid() != parent:
                        return
                    time.sleep(LOOK_SECONDS)
                version = message["params"]["protocolVersion"]
                server = {"name": "waiter", "version": "1.0"}
                hello = {"protocolVersion": version, "serverInfo": server}
                _say(id=message["id"], result=hello | {"capabilities": {"tools": {}}})
            case "tools/list":
                _say(id=message["id"], result={"tools": []})
            case _ if "id" in message:
                _say(id=message["id"], result={})


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
