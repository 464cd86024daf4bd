"""appmux as a systemd user service: the unit files, and the ``systemctl`` commands for them.

Used by ``service``, with the same methods as ``launchd``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from mux.errors import AppmuxError
from mux.host.steps import Remove, Run, Runner, Step, run
from mux.host.unit_files import ServiceSpec, template

SERVICE: Final = "appmux.service"
SOCKET: Final = "appmux.socket"
BOTH: Final = (SOCKET, SERVICE)

LINGERING: Final = Path("/var/lib/systemd/linger")
"""Directory with a file for each user whose services run without a login."""


class ManagerError(AppmuxError):
    """The service manager can't be used by this user, here and now."""


@attrs.frozen
class Systemd:
    """The user manager of systemd."""

    environ: Mapping[str, str]
    runner: Runner = run

    @property
    def name(self) -> str:
        """The service manager's name."""
        return "systemd"

    def files(self, spec: ServiceSpec) -> dict[Path, str]:
        """Return the unit files, by their paths."""
        service = template("systemd", SERVICE).fill(
            COMMAND=" ".join(quoted(word) for word in spec.command),
            ENVIRONMENT=" ".join(
                quoted(f"{name}={value}", expands=False) for name, value in spec.environ.items()
            ),
            ENVIRONMENT_FILE=specified(str(spec.environment_file)),
            STOP_SECONDS=str(spec.stop_seconds),
            HARDENED="yes" if spec.hardened else "no",
        )
        listen = "\n".join(f"ListenStream={specified(each)}" for each in spec.sockets)
        socket = template("systemd", SOCKET).fill(LISTEN=listen)
        return {self.directory / SERVICE: service, self.directory / SOCKET: socket}

    @property
    def directory(self) -> Path:
        """Return the directory of the user's own units."""
        config = self.environ.get("XDG_CONFIG_HOME")
        base = Path(config) if config else Path(self.environ["HOME"]) / ".config"
        return base / "systemd" / "user"

    @property
    def paths(self) -> list[Path]:
        """The files that a service has here."""
        return [self.directory / name for name in (SERVICE, SOCKET)]

    def require(self) -> None:
        """Raise ``ManagerError`` if no user manager answers."""
        done = self.runner(("systemctl", "--user", "show-environment"))
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip()
            raise ManagerError(
                f"no systemd user manager answers ({words}): log in as this user itself (ssh, not"
                " su or sudo), or `loginctl enable-linger` it; without systemd, have your own"
                " supervisor run `appmux serve`"
            )

    def start(self) -> list[Step]:
        """Return steps from the files to a running service, whether or not an older one runs."""
        # A socket whose service runs can't be given other addresses, so both are stopped first.
        return [
            self._control("daemon-reload"),
            self._control("stop", *BOTH, may_fail=True),
            self._control("enable", *BOTH),
            self._control("start", *BOTH),
        ]

    def register(self) -> list[Step]:
        """Return steps from the files to a service that starts with the next login."""
        return [self._control("daemon-reload"), self._control("enable", *BOTH)]

    def wake(self) -> list[Step]:
        """Return steps from an installed service to a running one; a running one isn't changed."""
        return [self._control("start", *BOTH)]

    def halt(self) -> list[Step]:
        """Return steps from a running service to a stopped one, which stays installed."""
        return [self._control("stop", *BOTH)]  # with a socket left, the next client would wake it

    def again(self) -> list[Step]:
        """Return steps that stop the broker and start it; the sockets queue clients meanwhile."""
        return [self._control("daemon-reload"), self._control("restart", SERVICE)]

    def keeps_turns(self) -> bool:
        """Return whether turns outlive a restart: systemd keeps the app-server's pipes by now.

        It doesn't for a service that was started by the unit of an older appmux.
        """
        kept = self._show(SERVICE, ("NFileDescriptorStore",)).get("NFileDescriptorStore", "0")
        return kept not in ("", "0")

    def reread(self) -> list[Step]:
        """Return steps that have a running broker read its secrets again."""
        return [self._control("reload", SERVICE)]

    def remove(self) -> list[Step]:
        """Return steps that stop the service and remove its files."""
        return [
            self._control("stop", *BOTH, may_fail=True),
            # While they are loaded: without its file a unit is kept for its failure alone.
            self._control("reset-failed", *BOTH, may_fail=True),
            self._control("disable", *BOTH, may_fail=True),
            *(Remove(path) for path in self.paths),
            self._control("daemon-reload"),
        ]

    def running(self) -> bool:
        """Return whether the service runs."""
        return self._active(SERVICE)

    def failed(self) -> bool:
        """Return whether the service ended by itself and isn't started again."""
        return self._show(SERVICE, ("ActiveState",)).get("ActiveState") == "failed"

    def crashes(self) -> int:
        """Return how often the service was started again by itself since it was started."""
        count = self._show(SERVICE, ("NRestarts",)).get("NRestarts", "0")
        return int(count) if count.isdigit() else 0

    def occupies(self) -> bool:
        """Return whether the service has its addresses already, be it only by its sockets."""
        return self._active(SERVICE) or self._active(SOCKET)

    def status(self) -> list[tuple[str, str]]:
        """Return the manager's status of the service, as (name, value)."""
        names = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "Result")
        shown = self._show(SERVICE, (*names, "UnitFileState"))
        socket = self._show(SOCKET, ("ActiveState", "UnitFileState"))
        state = f"{shown.get('ActiveState', '?')} ({shown.get('SubState', '?')})"
        lines = [("state", f"{state}, {shown.get('UnitFileState') or 'not installed'}")]
        if shown.get("MainPID", "0") != "0":
            lines.append(("pid", shown["MainPID"]))
        if shown.get("Result", "success") != "success":
            lines.append(("last end", shown["Result"]))
        if shown.get("NRestarts", "0") != "0":
            lines.append(("restarts", shown["NRestarts"]))
        lines.append(("sockets", socket.get("ActiveState", "?")))
        lines.append(("lingers", "yes" if self.lingers() else f"no: {self.after_logout()}"))
        return lines

    def logs(self, lines: int, follow: bool) -> list[str]:
        """Return the command that shows the log."""
        command = ["journalctl", "--user", "--unit", SERVICE, "--lines", str(lines), "--no-pager"]
        return [*command, "--follow"] if follow else command

    # -- a service of somebody else's ----------------------------------------------------------

    def place(self, unit: str) -> Path:
        """Return where a unit file stands."""
        return self.directory / unit

    def knows_running(self, unit: str) -> bool:
        """Return whether a unit of somebody else's runs."""
        return self._active(unit)

    def knows_enabled(self, unit: str) -> bool:
        """Return whether such a unit starts by itself."""
        return self.runner(("systemctl", "--user", "is-enabled", "--quiet", unit)).returncode == 0

    def stop_other(self, unit: str) -> list[Step]:
        """Return steps that stop such a unit and keep it from starting by itself."""
        return [self._control("disable", "--now", unit)]

    def start_other(self, unit: str, *, enabled: bool, running: bool) -> list[Step]:
        """Return steps that have such a unit as it was before ``stop_other``."""
        steps: list[Step] = [self._control("enable", unit)] if enabled else []
        return [*steps, self._control("start", unit)] if running else steps

    # -- logged out ----------------------------------------------------------------------------

    def lingers(self) -> bool:
        """Return whether the user's services outlive the last logout."""
        return (LINGERING / _user()).exists()

    def linger(self) -> list[Step]:
        """Return steps to run the user's services from boot on, and after the last logout."""
        return [] if self.lingers() else [Run(("loginctl", "enable-linger", _user()), True)]

    def after_logout(self) -> str:
        """Return what becomes of the service at the last logout, as a text for people."""
        return "it ends with your last logout; `loginctl enable-linger` keeps it running"

    # -- systemctl -----------------------------------------------------------------------------

    def _control(self, *words: str, may_fail: bool = False) -> Run:
        return Run(("systemctl", "--user", *words), may_fail)

    def _active(self, unit: str) -> bool:
        done = self.runner(("systemctl", "--user", "is-active", unit))
        return done.stdout.strip() in ("active", "activating", "reloading")

    def _show(self, unit: str, names: Iterable[str]) -> dict[str, str]:
        properties = ",".join(names)
        done = self.runner(("systemctl", "--user", "show", unit, f"--property={properties}"))
        lines = [line.partition("=") for line in done.stdout.splitlines()]
        return {name: value for name, _, value in lines}


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


# -- words in a unit file ----------------------------------------------------------------------


def specified(text: str) -> str:
    """Escape ``%`` in a text. Raises ``ManagerError`` if no unit file can hold the text."""
    if any(not char.isprintable() for char in text):
        raise ManagerError(f"a unit file can't hold {text!r}: it has a control character in it")
    return text.replace("%", "%%")


def quoted(text: str, *, expands: bool = True) -> str:
    """Quote one word of a command line or of ``Environment=``; only the former expands ``$``."""
    text = specified(text).replace("\\", "\\\\").replace('"', '\\"')
    if expands:
        text = text.replace("$", "$$")
    return f'"{text}"'
