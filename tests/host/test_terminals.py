"""`mux.host.terminals`: by what two clients of the same program are told apart."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mux.host import terminals
from mux.host.terminals import ClientLocation

linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


@linux
def test_a_process_on_a_terminal_and_its_directory(tmp_path: Path) -> None:
    person, terminal = pty.openpty()
    name = os.ttyname(terminal).removeprefix("/dev/")
    program = "import os, sys; os.login_tty(0); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=terminal, stdout=terminal, cwd=tmp_path
    ) as process:
        os.close(terminal)
        assert os.read(person, 100).startswith(b"there")
        assert terminals.of_process(process.pid) == ClientLocation(process.pid, name, str(tmp_path))
        os.close(person)
        process.wait()
        assert terminals.of_process(process.pid) == ClientLocation(process.pid)


@linux
def test_a_peer_on_loopback_is_found_by_its_port_and_others_are_left_out() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        host, port = client.getsockname()
        peers = {1: f"{host}:{port}", 2: "192.0.2.7:5123", 3: "unix", 4: "127.0.0.1:1"}
        found = terminals.of_peers(peers)
    assert list(found) == [1]
    assert (found[1].pid, found[1].directory) == (os.getpid(), str(Path.cwd()))


def test_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    said = {
        "ps": "ttys003\n",
        "lsof -a": "p42\nfcwd\nn/Users/ada/src\n",
        "lsof -w": "p42\nccodex\nf7\nn127.0.0.1:5123->127.0.0.1:14500\np9\nf1\nn[::1]:1->[::1]:2\n",
    }

    def runner(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        words = " ".join(argv)
        text = next(text for key, text in said.items() if words.startswith(key))
        return subprocess.CompletedProcess(argv, 0, text, "")

    assert terminals.of_peers({7: "127.0.0.1:5123"}, runner) == {
        7: ClientLocation(42, "ttys003", "/Users/ada/src")
    }
