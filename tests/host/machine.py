"""A host for the tests of `service`, `setup` and `doctor`: a home, a codex, and a `systemctl`.

The stand-in for `systemctl` is a real program on PATH which keeps in files what it was asked, and
which units are enabled and active. It starts nothing.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.ports import kept_port

SYSTEMCTL = """#!/bin/sh
here={here}
[ -e "$here/broken" ] && {{ echo "Failed to connect to bus" >&2; exit 1; }}
shift
verb=$1
case $verb in
  show-environment) exit 0 ;;
  is-active) [ -e "$here/active/$2" ] && echo active && exit 0; echo inactive; exit 3 ;;
  is-enabled) [ -e "$here/enabled/$3" ]; exit ;;
  show) [ -e "$here/loops" ] && echo "NRestarts=$(wc -l < "$here/loops")" && echo >> "$here/loops"
    echo "ActiveState=$([ -e "$here/active/$2" ] && echo active || echo inactive)"; exit 0 ;;
esac
echo "$@" >> "$here/asked"
shift
[ "$1" = --now ] && shift && rm -f "$here/active/$1"
for unit; do
  case $verb in
    enable) touch "$here/enabled/$unit" ;;
    disable) rm -f "$here/enabled/$unit" ;;
    start) touch "$here/active/$unit" ;;
    stop) rm -f "$here/active/$unit" ;;
  esac
done
exit 0
"""


@attrs.frozen
class Host:
    """Where everything is."""

    root: Path
    codex: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def units(self) -> Path:
        return self.home / ".config" / "systemd" / "user"

    @property
    def settings(self) -> Path:
        return self.home / ".config" / "appmux" / "config.toml"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "appmux"

    @property
    def control(self) -> Path:
        return self.home / ".codex" / "app-server-control" / "app-server-control.sock"

    @property
    def _manager(self) -> Path:
        return self.root / "manager"

    def asked(self, *verbs: str) -> list[str]:
        """What `systemctl` was asked to do, of these verbs (all, if none is named)."""
        path = self._manager / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not verbs or line.split()[0] in verbs]

    def crash_loop(self, *last_words: str) -> None:
        """Have the service end again and again, with these words in the journal."""
        (self._manager / "loops").touch()
        (self._manager / "journal").write_text("".join(f"{line}\n" for line in last_words))

    def break_manager(self) -> None:
        (self._manager / "broken").touch()

    def put(self, unit: str, *, enabled: bool, running: bool) -> None:
        """Have the manager know a unit as so."""
        for name, there in (("enabled", enabled), ("active", running)):
            path = self._manager / name / unit
            path.touch() if there else path.unlink(missing_ok=True)

    def vanilla(self, unit: str, variables: str) -> Path:
        """Install NovaScale's service; the path of its token."""
        token = self.home / ".codex" / "novascale-app-server-token"
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("the-phones-token\n")
        self.units.mkdir(parents=True, exist_ok=True)
        (self.units / "novascale-codex.service").write_text(unit.format(token=token))
        (token.parent / "novascale-codex-host.env").write_text(variables)
        self.put("novascale-codex.service", enabled=True, running=True)
        return token

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """This process as a foreign listener on Codex's control socket."""
        self.control.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
            foreign.bind(str(self.control))
            foreign.listen()
            try:
                yield foreign
            finally:
                self.control.unlink()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A Linux host of its own, with nothing of appmux on it yet."""
    if sys.platform != "linux":
        pytest.skip("the stand-in is for systemd")
    # Short, as the path of a unix socket has to be.
    with tempfile.TemporaryDirectory(prefix="am") as root, kept_port() as port:
        yield _made(Path(root), port, monkeypatch)


def _made(root: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Host:
    for variable in list(os.environ):
        if variable.startswith(("APPMUX_", "XDG_", "CODEX_")):
            monkeypatch.delenv(variable)
    made = Host(root, root / "codex")
    made.home.mkdir()
    for name in ("enabled", "active"):
        (root / "manager" / name).mkdir(parents=True)
    _program(made.codex, "#!/bin/sh\necho codex-cli 1.2.3\n")
    _program(root / "bin" / "systemctl", SYSTEMCTL.format(here=root / "manager"))
    _program(root / "bin" / "journalctl", f"#!/bin/sh\ncat {root}/manager/journal 2>/dev/null\n")
    _program(root / "bin" / "loginctl", "#!/bin/sh\nexit 0\n")
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("APPMUX_CODEX_BIN", str(made.codex))
    monkeypatch.setenv("PATH", str(root / "bin"), prepend=os.pathsep)
    # Free addresses, so that a broker on this machine isn't in the way.
    monkeypatch.setenv("APPMUX_LISTEN", f"unix://,ws://127.0.0.1:{port}")
    return made


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
