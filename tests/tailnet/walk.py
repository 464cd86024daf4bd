"""A walk through `appmux setup` on a host of a Tailnet, in a network namespace of its own.

`unshare -n python -m tests.tailnet.walk DIRECTORY` (as root) makes an interface with Tailscale's
addresses, sets the host up without and with a stand-in of tailscaled, and runs the broker. It
prints what each step took and said, as JSON.

Hands to: `end_to_end/test_setup_tailnet`, and whoever wants to see it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.end_to_end.native import codex_bin
from tests.end_to_end.peer import PATIENCE
from tests.tailnet.stand_in import Tailscaled, tailscaled

ADDRESSES: Final = ("100.64.0.7", "fd7a:115c:a1e0::7")
APPMUX: Final = (sys.executable, "-m", "mux")

INTERFACE: Final = (
    "ip link set lo up",
    "ip tuntap add dev tailscale0 mode tun",
    "ip addr add 100.64.0.7/32 dev tailscale0",
    "ip -6 addr add fd7a:115c:a1e0::7/128 dev tailscale0 nodad",
    "ip link set tailscale0 up",
)


def missing() -> str:
    """What this machine lacks for the walk; empty if nothing."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    programs = [each for each in ("unshare", "ip") if shutil.which(each) is None]
    if programs or not Path("/dev/net/tun").exists():
        return f"it needs {', '.join(programs) or '/dev/net/tun'}"
    return ""


class Walk:
    """The steps, and what they took."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.steps: dict[str, dict[str, Any]] = {}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self.environ = kept | {"HOME": str(self.home), "APPMUX_CODEX_BIN": str(codex_bin())}

    def step(self, name: str, *arguments: str) -> str:
        """Run a command of ours to its end; what it said."""
        began = time.monotonic()
        done = subprocess.run(
            [*APPMUX, *arguments], env=self.environ, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        seconds = round(time.monotonic() - began, 1)
        self.steps[name] = {"seconds": seconds, "status": done.returncode, "said": said}
        return done.stdout

    def serve(self, daemon: Tailscaled) -> None:
        """Run the broker, and look at what is served."""
        began = time.monotonic()
        with subprocess.Popen(
            [*APPMUX, "serve"], env=self.environ, stderr=subprocess.DEVNULL
        ) as broker:
            try:
                while not (shown := self._status())["url"]:
                    if time.monotonic() > began + 3 * PATIENCE:
                        break
                    time.sleep(0.1)
                seconds = round(time.monotonic() - began, 1)
                self.steps["serve"] = {"seconds": seconds, "status": 0, "said": shown}
                self.steps["names"] = {"said": [self._name(daemon, each) for each in ADDRESSES]}
                self.step("disable", "tailnet", "disable")
            finally:
                broker.terminate()

    def _status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.step("status", "tailnet", "status", "--json"))
        return shown

    def _name(self, daemon: Tailscaled, address: str) -> str:
        """The name that an address is trusted by."""
        context = ssl.create_default_context(cafile=str(daemon.ca))
        with (
            socket.create_connection((address, 14543), PATIENCE) as bare,
            context.wrap_socket(bare, server_hostname=daemon.name) as stream,
        ):
            certificate = stream.getpeercert() or {}
        return str(certificate["subjectAltName"][0][1])


def main(directory: Path) -> None:
    for line in INTERFACE:
        subprocess.run(line.split(), check=True)
    walk = Walk(directory)
    walk.step("dry run without tailscaled", "setup", "--no-service", "--dry-run")
    walk.step("without tailscaled", "setup", "--no-service", "--yes")
    with tailscaled(directory / "ts", addresses=ADDRESSES) as daemon:
        walk.environ["APPMUX_TAILNET_SOCKET"] = str(daemon.socket)
        walk.step("dry run", "setup", "--no-service", "--dry-run", "--https")
        walk.step("yes alone", "setup", "--no-service", "--yes")
        assert daemon.orders() == 0
        walk.step("https", "setup", "--no-service", "--yes", "--https")
        walk.serve(daemon)
    print(json.dumps(walk.steps, indent=2))  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
