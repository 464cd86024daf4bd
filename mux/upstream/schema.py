"""Learns what is experimental in the codex that runs, from its own JSON Schema; cached by version.

    STATE/codex-schema/VERSION+IDENTITY/
        stable.json, experimental.json   the bundles of `codex app-server generate-json-schema`
        gate.json                        the broker's extract (`core.protocol.experimental.Gate`)

Codex generates into ``STATE/codex-schema.new-…`` first. A kill leaves that directory until the next
start.

A directory is made once for each binary (identified by inode, time and size), in the background:
nobody waits for it. After a change of the binary, the last known extract holds until the new one is
made; if there is none, nothing is refused. A failure (a codex without that command, no disk) is
logged, and has no other effect.

The command ``LoadExperimentalSchema`` starts it, by way of ``dispatcher``; the event
``ExperimentalSchemaLoaded`` brings the result.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from mux.config.codex_binary import identity
from mux.core.part import Part
from mux.core.protocol.experimental import Gate, gate_of
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.storage import json_file
from mux.upstream.version import codex_version, kill

DIRECTORY: Final = "codex-schema"
BUNDLE: Final = "codex_app_server_protocol.schemas.json"
STABLE: Final = "stable.json"
EXPERIMENTAL: Final = "experimental.json"
GATE: Final = "gate.json"

NEW: Final = ".new-"
"""Part of the name of a directory that isn't complete yet."""

ABANDONED: Final = 3600.0
"""Seconds after which an incomplete directory counts as abandoned; making one takes a moment."""

DEADLINE: Final = 60.0
"""Seconds for each run of the binary. A run takes 0.3 s, the first one from a cold disk some more.
"""

KEPT: Final = 4
"""Directories to keep: of the codex that runs, the one before, and versions that a person tries."""

log = structlog.get_logger()


class SchemaError(AppmuxError):
    """The binary didn't write its schema."""


class CodexSchema(Part):
    """Learns what is experimental in a binary, each time that it is started."""

    binary: Path
    state_dir: Path
    on_gate: Callable[[Gate | None], None]
    """Called with the result; None if there is none."""
    version: str | None = None
    """Version of the codex whose result is in force; None while there is no result."""
    _requested: trio.Event = msgspec.field(default_factory=trio.Event)
    _learned: str | None = None
    """Identity of the binary that was learned last."""

    def learn(self) -> None:
        """Have the binary examined: it has been started, and may have changed. Doesn't wait."""
        self._requested.set()

    async def run(self) -> None:
        """Examine the binary after each ``learn``, until cancelled."""
        await trio.to_thread.run_sync(_tidy, self.state_dir)
        while True:
            await self._requested.wait()
            self._requested = trio.Event()
            which = identity_text(self.binary)
            if which is None or which == self._learned:
                continue
            try:
                gate = await self._find(which)
            except (AppmuxError, OSError, ValueError) as failure:
                log.warning("codex's schema can't be had, so nothing is gated", why=str(failure))
                gate = None
            if which == identity_text(self.binary):  # else ``learn`` will be called for the new one
                self._learned = which
                self.version = None if gate is None else gate.version
                self.on_gate(gate)

    async def _find(self, which: str) -> Gate:
        stored = await trio.to_thread.run_sync(_read_kept, self.state_dir, which)
        if stored is not None:
            return stored
        began = time.monotonic()
        version = await codex_version(self.binary)
        with tempfile.TemporaryDirectory(
            prefix=f"{DIRECTORY}{NEW}", dir=self.state_dir, ignore_cleanup_errors=True
        ) as out:
            place = Path(out)
            await _generate(self.binary, "json-schema", place / "stable")
            await _generate(self.binary, "json-schema", place / "all", "--experimental")
            await self._generate_order(place / "ts")
            gate = await trio.to_thread.run_sync(_make, version, place)
            await trio.to_thread.run_sync(_keep, self.state_dir, which, place, gate)
        seconds = round(time.monotonic() - began, 3)
        methods, fields = len(gate.methods), sum(len(each) for each in gate.fields.values())
        log.info(
            "codex's schema read", version=version, methods=methods, fields=fields, seconds=seconds
        )
        return gate

    async def _generate_order(self, out: Path) -> None:
        """Have the binary write TypeScript, the only form that shows the order of declared fields.

        The schema can be used without that order.
        """
        try:
            await _generate(self.binary, "ts", out, "--experimental")
        except SchemaError as failure:
            log.warning("codex's order of fields can't be had", why=str(failure))


def identity_text(binary: Path) -> str | None:
    """Return the binary's identity as a part of a file's name; None if the binary is gone."""
    numbers = identity(binary)
    return None if numbers is None else "-".join(f"{number:x}" for number in numbers)


async def _generate(binary: Path, what: str, out: Path, *options: str) -> None:
    """Have the binary write its schema to ``out``. Raises ``SchemaError``."""
    command = [str(binary), "app-server", f"generate-{what}", "--out", str(out), *options]
    with trio.move_on_after(DEADLINE) as deadline:
        done = await trio.run_process(
            command,
            stdin=b"",
            env=os.environ | {"CODEX_HOME": os.devnull},  # else it leaves files in there
            stdout=subprocess.DEVNULL,
            capture_stderr=True,
            check=False,
            start_new_session=True,
            deliver_cancel=kill,
        )
    shown = " ".join(command)
    if deadline.cancelled_caught:
        raise SchemaError(f"`{shown}` gave no answer in {DEADLINE:.0f} s")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-200:]
        raise SchemaError(f"`{shown}` exited with {done.returncode}: {reason}")


def _make(version: str, place: Path) -> Gate:
    """Make the extract of the generated files. Raises ``OSError``, ``ValueError``."""
    orders = {
        f"{path.parent.name}/{path.stem}": declared(path.read_text(encoding="utf-8"))
        for path in place.glob("ts/v2/*Params.ts")
    }
    stable, experimental = (place / each / BUNDLE for each in ("stable", "all"))
    return gate_of(version, stable.read_bytes(), experimental.read_bytes(), orders)


def declared(source: str) -> list[str]:
    """Return the names of a type's fields, in the order that its TypeScript file declares them."""
    match = re.search(r"export type \w+ = \{(.*)\}", _COMMENT.sub("", source), re.DOTALL)
    body, before = match[1] if match else "", ""
    while body != before:
        body, before = re.sub(r"\{[^{}]*\}", "", body), body
    return re.findall(r"(\w+)\??:", body)


_COMMENT: Final = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


# -- in the state directory ------------------------------------------------------------------------


def _read_kept(state_dir: Path, which: str) -> Gate | None:
    for path in (state_dir / DIRECTORY).glob(f"*+{which}/{GATE}"):
        try:
            gate = msgspec.json.decode(private_file.read(path), type=Gate)
            os.utime(path.parent)  # so that the oldest is the one unused for longest
        except (OSError, msgspec.DecodeError) as failure:
            log.warning("what was kept of codex's schema can't be read", why=str(failure))
        else:
            return gate
    return None


def _keep(state_dir: Path, which: str, place: Path, gate: Gate) -> None:
    """Keep it for the next start, whole or not at all, whoever else does just that."""
    directory = state_dir / DIRECTORY
    made = directory / f"{gate.version}+{which}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(tempfile.mkdtemp(prefix=f"{made.name}{NEW}", dir=directory))
        shutil.copyfile(place / "stable" / BUNDLE, new / STABLE)
        shutil.copyfile(place / "all" / BUNDLE, new / EXPERIMENTAL)
        json_file.replace(new / GATE, msgspec.json.encode(gate).decode())
        shutil.rmtree(made, ignore_errors=True)
        new.rename(made)
        _forget(sorted(directory.iterdir(), key=lambda each: each.stat().st_mtime)[:-KEPT])
    except OSError as failure:
        log.warning("codex's schema isn't kept, so the next start makes it again", why=str(failure))


def _tidy(state_dir: Path) -> None:
    """Remove what killed brokers have left.

    In the state directory itself there is no other broker; in the directory of schemas a new entry
    may be under way.
    """
    _forget(list(state_dir.glob(f"{DIRECTORY}{NEW}*")))
    before = time.time() - ABANDONED
    unfinished = (state_dir / DIRECTORY).glob(f"*{NEW}*")
    _forget([each for each in unfinished if _changed(each) < before])


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # it has just been renamed
        return math.inf


def _forget(old: Sequence[Path]) -> None:
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
