"""An MCP server over stdio with one tool, which asks a person and says what was answered.

Run as a script by the app-server, for `test_questions`; it speaks as little of MCP as that takes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

FORM = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
TOOL = {"name": "ask", "description": "Asks.", "inputSchema": {"type": "object", "properties": {}}}


def main() -> None:
    """Answer each line of stdin until it ends."""
    calls: list[Any] = []
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                version = message["params"]["protocolVersion"]
                server = {"name": "elicitor", "version": "1.0"}
                hello = {"protocolVersion": version, "serverInfo": server}
                _say(id=message["id"], result=hello | {"capabilities": {"tools": {}}})
            case "tools/list":
                _say(id=message["id"], result={"tools": [TOOL]})
            case "tools/call":
                calls.append(message["id"])
                asked = {"message": "Which word?", "requestedSchema": FORM}
                _say(id="asked", method="elicitation/create", params=asked)
            case None:
                text = json.dumps(message.get("result") or message.get("error"))
                content = [{"type": "text", "text": f"the person answered {text}"}]
                _say(id=calls.pop(), result={"content": content})
            case _ if "id" in message:
                _say(id=message["id"], result={})


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
