"""An app-server that does what the real one can't be made to do. Run as a script, with a fault.

It answers `initialize`, and any other request with its own params; except for its fault. One that
is at fault only when asked (`fault/…`) is run with `none`.

Hands to: the broker, by stdout.
Hears from: `test_process`, `end_to_end/test_faults` and `end_to_end/test_outage`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

USER_AGENT: Final = "appmux/9.9.9 (Testing 1.0; none) test (appmux; 0.1)"
NO_MESSAGES: Final = (
    b"no JSON at all", b"", b"{}", b"[]", b"null", b"5", b'"text"', b'{"id":', b"\xff\xfe\x00",
    b'{"id":987654321,"result":{}}', b'{"id":"1","result":{}}', b'{"id":null,"error":{}}',
    b'{"id":987654321,"error":{"code":-32001,"message":"x"}}', b"[" * 100_000,
    b'{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":7}}',
    b'{"method":"fs/changed","params":{"watchId":"nobody\'s"}}', b'{"method":5}',
    b'{"method":"turn/started","params":[]}', b'{"method":"item/completed","params":{"item":3}}',
)  # fmt: skip
LONG: Final = 3 * 1024 * 1024


def main(fault: str) -> None:
    """Answer each line of stdin, in the way of the fault."""
    _before(fault)
    counts: Counter[str] = Counter()
    kept: list[Any] = []
    for line in sys.stdin.buffer:
        message = json.loads(line)
        id, method = message.get("id"), message.get("method")
        if id is None:
            continue
        counts[method] += 1
        if method == "initialize":
            _hello(fault, id)
        elif method.startswith("fault/"):
            _on_request(method, message["params"])
        elif fault == "silent" or (fault == "late" and method == "slow"):
            kept.append(id)
        elif fault == "overloaded" and counts[method] <= message["params"]["times"]:
            _error(id, -32001, "Server overloaded; retry later.")
        else:
            _noise(fault)
            for late in kept:
                _say({"id": late, "result": {"late": True}})
            kept.clear()
            _say({"id": id, "result": message["params"] | {"asked": counts[method]}})
    if fault == "stubborn":
        while True:
            time.sleep(3600)


def _before(fault: str) -> None:
    if fault == "dies":
        sys.stderr.write("first words\n\x1b[31mlast words\x1b[0m\n")
        sys.exit(7)
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _hello(fault: str, id: Any) -> None:
    if fault == "mute":
        return
    if fault == "rude":
        _say({"id": id, "result": {"hello": "there"}})
        return
    result = {"userAgent": USER_AGENT, "codexHome": "/", "platformFamily": "x", "platformOs": "x"}
    _say({"id": id, "result": result})


def _on_request(method: str, params: Any) -> None:
    if method == "fault/cutLine":
        _say({"method": "warning", "params": {"message": "whole"}})
        _write(b'{"method":"warning","params":{"message":"half a l')
        os._exit(1)
    elif method == "fault/closeStdout":
        os.close(sys.stdout.fileno())
    elif method == "fault/leaveChild":
        child = subprocess.Popen(["sleep", "1000"])  # it has our stdout and stderr, too
        Path(params["into"]).write_text(str(child.pid))
        os.kill(os.getpid(), signal.SIGKILL)


def _noise(fault: str) -> None:
    if fault != "noisy":
        return
    for line in NO_MESSAGES:
        _write(line + b"\n")
    half = b'{"method":"warning","params":{"message":"in halves"}}\n'
    for at in range(0, len(half), 7):
        _write(half[at : at + 7])
    long = json.dumps({"method": "warning", "params": {"message": "x" * LONG}}).encode()
    _write(long + b"\r\n")


def _error(id: Any, code: int, text: str) -> None:
    _say({"error": {"code": code, "message": text}, "id": id})


def _say(message: dict[str, Any]) -> None:
    _write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
