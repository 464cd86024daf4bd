"""Changes to a machine as values, so that they can be shown before they are made, or instead.

Made by ``service``, ``setup``, ``systemd``, ``launchd`` and ``novascale``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import msgspec

from mux.errors import AppmuxError

PRIVATE: Final = 0o600
READABLE: Final = 0o644
PRIVATE_DIRECTORY: Final = 0o700

COMMAND_DEADLINE: Final = 150.0
"""Seconds. Longer than a service manager's own time to start or stop a service (90 s)."""

TRY_AGAIN: Final = 1.0
"""Seconds between two tries."""

Runner: TypeAlias = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class StepError(AppmuxError):
    """A step failed; the text says which, and what the machine said."""


@attrs.frozen
class Write:
    """Write a whole file."""

    path: Path
    text: str = attrs.field(repr=False)
    mode: int = READABLE
    secret: bool = False
    """The text is shown to nobody."""


class Remove(msgspec.Struct, frozen=True):
    """Remove a file, which may be gone already."""

    path: Path


class Run(msgspec.Struct, frozen=True):
    """Run a program."""

    argv: tuple[str, ...]
    may_fail: bool = False
    """If the program fails, that is reported and the rest is still done."""
    tries: int = 1
    """Number of tries, a second apart, until the program succeeds."""


@attrs.frozen
class Do:
    """Any other change."""

    words: str
    """The change in words, in the imperative."""
    act: Callable[[], object] = attrs.field(eq=False)


Step: TypeAlias = Write | Remove | Run | Do


def describe(step: Step) -> str:
    """Return the step in one line."""
    match step:
        case Write(path, _text, mode):
            return f"write {path} (mode {mode:o})"
        case Remove(path):
            return f"remove {path}"
        case Run(argv):
            return f"run `{shlex.join(argv)}`"
        case Do(words):
            return words


def perform(
    steps: Iterable[Step], say: Callable[[str], None], runner: Runner | None = None
) -> None:
    """Perform the steps in order, and print each. Raises ``StepError`` at the first that fails."""
    for step in steps:
        say(describe(step))
        match step:
            case Write():
                _write(step)
            case Remove(path):
                _remove(path)
            case Run():
                _run(step, say, runner or run)
            case Do():
                step.act()


def _write(step: Write) -> None:
    """Put the whole file into place at once, so nobody sees half of it, or a secret too open."""
    directory = step.path.parent
    try:
        directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=directory, prefix=f".{step.path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), step.mode)
                file.write(step.text)
            Path(new).replace(step.path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
    except OSError as failure:
        raise StepError(f"can't write {step.path}: {failure.strerror}") from failure


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as failure:
        raise StepError(f"can't remove {path}: {failure.strerror}") from failure


def _run(step: Run, say: Callable[[str], None], runner: Runner) -> None:
    done = runner(step.argv)
    for _ in range(step.tries - 1):
        if done.returncode == 0:
            break
        time.sleep(TRY_AGAIN)
        done = runner(step.argv)
    if done.returncode == 0:
        return
    words = "\n".join(f"  {line}" for line in (done.stderr or done.stdout or "").splitlines())
    failure = f"`{shlex.join(step.argv)}` failed with {done.returncode}"
    if not step.may_fail:
        raise StepError(f"{failure}:\n{words}" if words else failure)
    say(f"  {failure}; going on" + (f":\n{words}" if words else ""))


def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. One that can't be run, or hangs, counts as failed."""
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_DEADLINE,
            check=False,
        )
    except OSError as failure:
        reason = failure.strerror or str(failure)
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: {reason}")
    except subprocess.TimeoutExpired:
        reason = f"no end after {COMMAND_DEADLINE:.0f} s"
        return subprocess.CompletedProcess(argv, 124, "", f"{argv[0]}: {reason}")
