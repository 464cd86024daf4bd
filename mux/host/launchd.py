"""appmux as a LaunchAgent of macOS: the property list, and the ``launchctl`` commands for it.

Used by ``service``, with the same methods as ``systemd``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from mux.host.steps import Remove, Run, Runner, Step, run
from mux.host.systemd import ManagerError
from mux.host.unit_files import ServiceSpec, template

LABEL: Final = "dev.appmux"
PLIST: Final = f"{LABEL}.plist"

BOOTSTRAP_TRIES: Final = 30
"""Tries, a second apart: about as many as a broker needs to drain and end its app-server."""

LOG: Final = Path("Library", "Logs", "appmux", "appmux.log")
"""The log's path below HOME."""


@attrs.frozen
class Launchd:
    """The user's domain of launchd."""

    environ: Mapping[str, str]
    runner: Runner = run
    uid: int = attrs.field(factory=os.getuid)

    @property
    def name(self) -> str:
        """The service manager's name."""
        return "launchd"

    @property
    def _domain(self) -> str:
        return f"gui/{self.uid}"

    def files(self, spec: ServiceSpec) -> dict[Path, str]:
        """Return the property list, by its path."""
        environ = "".join(
            f"\n\t\t<key>{_text(name)}</key>\n\t\t<string>{_text(value)}</string>"
            for name, value in spec.environ.items()
        )
        words = "".join(f"\n\t\t<string>{_text(word)}</string>" for word in spec.command)
        text = template("launchd", PLIST).fill(
            COMMAND=words + "\n\t",
            ENVIRONMENT=environ + "\n\t",
            STOP_SECONDS=str(spec.stop_seconds),
            LOG=_text(str(spec.log)),
        )
        return {self.place(LABEL): text}

    @property
    def paths(self) -> list[Path]:
        """The files that a service has here."""
        return [self.place(LABEL)]

    def require(self) -> None:
        """Raise ``ManagerError`` if the user has no domain, as over ssh without a desktop login."""
        done = self.runner(("launchctl", "print", self._domain))
        if done.returncode != 0:
            raise ManagerError(
                f"launchd has no {self._domain} ({(done.stderr or done.stdout).strip()}): log in at"
                " the Mac's screen once, then try again"
            )

    def start(self) -> list[Step]:
        """Return steps from the file to a running service, whether or not an older one runs."""
        return [
            *([self._bootout(LABEL)] if self.running() else []),
            Run(("launchctl", "enable", f"{self._domain}/{LABEL}")),
            self._bootstrap(LABEL),
        ]

    def register(self) -> list[Step]:
        """Return steps that start the service at the next login, which needs only the file."""
        return [Run(("launchctl", "enable", f"{self._domain}/{LABEL}"))]

    def wake(self) -> list[Step]:
        """Return steps from an installed service to a running one; none if it runs."""
        return [] if self.running() else [self._bootstrap(LABEL)]

    def halt(self) -> list[Step]:
        """Return steps from a running service to a stopped one, which stays installed."""
        return [self._bootout(LABEL)] if self.running() else []

    def again(self) -> list[Step]:
        """Return steps that stop the broker and start it."""
        if not self.running():
            return [self._bootstrap(LABEL)]
        return [Run(("launchctl", "kickstart", "-k", f"{self._domain}/{LABEL}"))]

    def keeps_turns(self) -> bool:
        """Return whether turns outlive a restart: launchd keeps nothing for a job."""
        return False

    def reread(self) -> list[Step]:
        """Return steps that have a running broker read its secrets again."""
        return [Run(("launchctl", "kill", "SIGHUP", f"{self._domain}/{LABEL}"))]

    def remove(self) -> list[Step]:
        """Return steps that stop the service and remove its files."""
        steps: list[Step] = [self._bootout(LABEL)] if self.running() else []
        return [*steps, Remove(self.place(LABEL))]

    def running(self) -> bool:
        """Return whether the service runs."""
        return self.knows_running(LABEL)

    def failed(self) -> bool:
        """Return whether the service ended by itself: launchd starts it again as long as it is."""
        return False

    def crashes(self) -> int:
        """Return how often the service was started again by itself since it was started."""
        runs = dict(self.status()).get("runs", "1")
        return max(0, int(runs) - 1) if runs.isdigit() else 0

    def occupies(self) -> bool:
        """Return whether the service itself has its addresses already."""
        return self.running()

    def status(self) -> list[tuple[str, str]]:
        """Return launchd's status of the service, as (name, value)."""
        done = self.runner(("launchctl", "print", f"{self._domain}/{LABEL}"))
        if done.returncode != 0:
            return [("state", "not loaded" if self.place(LABEL).exists() else "not installed")]
        fields = dict(re.findall(r"^\t(state|pid|runs|last exit code) = (.+)$", done.stdout, re.M))
        return list(fields.items())

    def logs(self, lines: int, follow: bool) -> list[str]:
        """Return the command that shows the log."""
        path = str(Path(self.environ["HOME"]) / LOG)
        # -F: goes on when the file is rotated away.
        return ["tail", "-n", str(lines), *(["-F"] if follow else []), path]

    # -- a service of somebody else's ----------------------------------------------------------

    def place(self, label: str) -> Path:
        """Return where the property list of a job stands."""
        return Path(self.environ["HOME"]) / "Library" / "LaunchAgents" / f"{label}.plist"

    def knows_running(self, label: str) -> bool:
        """Return whether a job of somebody else's runs."""
        return self.runner(("launchctl", "print", f"{self._domain}/{label}")).returncode == 0

    def knows_enabled(self, label: str) -> bool:
        """Return whether such a job starts by itself."""
        done = self.runner(("launchctl", "print-disabled", self._domain))
        disabled = rf'"{re.escape(label)}" => (true|disabled)'
        return self.place(label).exists() and not re.search(disabled, done.stdout)

    def stop_other(self, label: str) -> list[Step]:
        """Return steps that stop such a job and keep it from starting by itself."""
        steps: list[Step] = [self._bootout(label)] if self.knows_running(label) else []
        return [*steps, Run(("launchctl", "disable", f"{self._domain}/{label}"))]

    def start_other(self, label: str, *, enabled: bool, running: bool) -> list[Step]:
        """Return steps that have such a job as it was before ``stop_other``."""
        steps: list[Step] = []
        if enabled or running:
            steps.append(Run(("launchctl", "enable", f"{self._domain}/{label}")))
        if running:
            steps.append(self._bootstrap(label))
        return steps

    # -- logged out ----------------------------------------------------------------------------

    def lingers(self) -> bool:
        """Return whether services outlive the last logout: never here."""
        return False

    def linger(self) -> list[Step]:
        """Return steps to have services outlive the last logout: there are none."""
        return []

    def after_logout(self) -> str:
        """Return what becomes of the service at a logout, as a text for people."""
        return "a LaunchAgent runs while you are logged in at the Mac; it survives a locked screen"

    def _bootstrap(self, label: str) -> Run:
        # `bootout` returns before the job has ended, and until then `bootstrap` fails.
        argv = ("launchctl", "bootstrap", self._domain, str(self.place(label)))
        return Run(argv, tries=BOOTSTRAP_TRIES)

    def _bootout(self, label: str) -> Run:
        return Run(("launchctl", "bootout", f"{self._domain}/{label}"))


def _text(text: str) -> str:
    """Escape text for XML. Raises ``ManagerError`` if XML can't hold it."""
    if any(not char.isprintable() for char in text):
        raise ManagerError(f"a property list can't hold {text!r}: there is a control character")
    return escape(text)
