"""`appmux-codex`: what is the door's, and what becomes the real codex."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mux.config.codex_binary import CodexError, find_codex
from mux.stdio.codex_wrapper import as_door, listen_url

STAND_IN = str(Path(sys.executable).with_name("appmux-codex"))


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("app-server", []),
        ("app-server --listen stdio://", []),
        ("app-server --listen=stdio://", []),
        ("app-server --stdio --analytics-default-enabled", []),
        (
            "--config a.b=1 --config=c=2 app-server --listen stdio://",
            ["--config a.b", "--config c"],
        ),
        ("-c key=secret app-server", ["-c key"]),
        ("-ckey=secret app-server -c=other=1", ["-c key", "-c other"]),
        ("--enable f --disable=g app-server", ["--enable f", "--disable g"]),
        ("app-server --strict-config --enable f", ["--enable f"]),
        ("-p work -m gpt --search app-server", ["-p", "-m", "--search"]),
        ("-s read-only --full-auto app-server", ["-s", "--full-auto"]),
        ("app-server --startup-sign-out", ["--startup-sign-out"]),
        ("app-server --ws-auth capability-token", ["--ws-auth"]),
        ("app-server --code-mode-host http://h", ["--code-mode-host"]),
        ("app-server --new-flag", ["--new-flag"]),
        ("app-server --new-flag value", ["--new-flag"]),
        ("app-server --new-flag=value --stdio", ["--new-flag"]),
    ],
)
def test_an_app_server_on_stdio_is_the_door(line: str, ignored: list[str]) -> None:
    assert as_door(line.split()) == ignored


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("app-server", None),
        ("app-server --listen stdio://", None),
        ("app-server --listen unix:///tmp/x", "unix:///tmp/x"),
        ("-c a=b app-server --listen=unix://x.sock", "unix://x.sock"),
        ("app-server --listen ws://127.0.0.1:0 --strict-config", "ws://127.0.0.1:0"),
        ("app-server --listen ws://[::1]:1", "ws://[::1]:1"),
    ],
)
def test_an_app_server_on_a_listener_of_its_own_is_relayed(line: str, url: str | None) -> None:
    assert as_door(line.split()) is not None
    assert listen_url(line.split()) == url


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--version",
        "-V app-server",
        "exec hello",
        "exec app-server",
        "-c a=b exec app-server",
        "app-server --listen unix://",
        "app-server --listen ws://0.0.0.0:1",
        "app-server --listen ws://localhost:1",
        "app-server --listen ws://127.0.0.1:x",
        "app-server --listen wss://127.0.0.1:1",
        "app-server --listen ws://127.0.0.1:1 --ws-auth capability-token --ws-token-file f",
        "app-server --listen off",
        "app-server --listen",
        "app-server -c",
        "-c",
        "app-server generate-json-schema --out x",
        "app-server generate-ts",
        "app-server daemon start",
        "app-server proxy",
        "app-server help",
        "app-server --new-flag proxy",
        "app-server something-new",
        "app-server --help",
        "app-server -h",
        "app-server --print-startup-config",
        "-c a=b app-server proxy --sock p",
        "app-server -c a=b proxy",
        "-i picture app-server",
        "--remote unix:// app-server",
        "-- app-server",
        "app-server -- x",
        "say app-server",
    ],
)
def test_everything_else_is_the_real_codex_s(line: str) -> None:
    assert as_door(line.split()) is None


# ── becoming the real one ─────────────────────────────────────────────────────────────────────

REAL = f"""#!{sys.executable} -I
import json, os, signal, sys
told = {{
    "arguments": sys.argv[1:],
    "environ": {{k: v for k, v in os.environ.items() if k != "LC_CTYPE"}},
    "locale": "LC_CTYPE=" in open("/proc/self/environ").read(),
    "terminal": [os.isatty(0), os.isatty(1)],
    "pid": os.getpid(),
}}
if "wait" in sys.argv:
    # Python's own handler only notes one that comes right before the pause, which then never ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
print(json.dumps(told), flush=True)
if "wait" in sys.argv:
    signal.pause()
sys.exit(7)
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    path = tmp_path / "real" / "codex"
    path.parent.mkdir()
    path.write_text(REAL)
    path.chmod(0o755)
    return path


def environ(real: Path, **more: str) -> dict[str, str]:
    home = real.parent.parent
    return {"PATH": f"{real.parent}:/usr/bin:/bin", "HOME": str(home), **more}


def test_arguments_environment_and_status_are_as_they_are(real: Path) -> None:
    arguments = ["exec", "", "two words", "--flag=\n", "app-server"]
    given = environ(real, ODD="x=\ny", APPMUX_SOCKET="/nowhere")
    process = subprocess.Popen(
        [STAND_IN, *arguments], env=given, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    out, _ = process.communicate()
    told = json.loads(out)
    assert told["arguments"] == arguments
    assert told["environ"] == given
    assert (told["locale"], process.returncode) == (False, 7)
    assert told["pid"] == process.pid  # it has become it: signals and job control find it


def test_what_python_ignores_is_not_ignored_there(real: Path) -> None:
    real.write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    done = subprocess.run([STAND_IN], env=environ(real), capture_output=True, check=True)
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_the_terminal_is_its_own(real: Path) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [STAND_IN, "wait"], env=environ(real), stdin=its, stdout=its, start_new_session=True
    )
    os.close(its)
    told = b""
    while b"\n" not in told:
        told += os.read(ours, 4096)
    assert json.loads(told)["terminal"] == [True, True]
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    os.close(ours)


@pytest.mark.parametrize("how", ["symlink", "copy", "wrapper"])
def test_it_never_finds_itself(real: Path, tmp_path: Path, how: str) -> None:
    """Named `codex` and first on PATH, it finds the next one; without any, it says so."""
    place = tmp_path / "mine"
    place.mkdir()
    mine = place / "codex"
    if how == "symlink":
        mine.symlink_to(STAND_IN)
    else:
        wrapper = f'#!/bin/sh\nexec {STAND_IN} "$@"\n'
        mine.write_text(Path(STAND_IN).read_text() if how == "copy" else wrapper)
        mine.chmod(0o755)
    found = environ(real, PATH=f"{place}:{real.parent}")
    assert find_codex(None, found) == real
    done = subprocess.run(
        [mine, "--version"],
        env=found | {"PATH": found["PATH"] + ":/bin"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["arguments"]) == (7, ["--version"])
    with pytest.raises(CodexError, match="would start itself over and over"):
        find_codex(mine, found)
    named = found | {"APPMUX_CODEX_BIN": str(mine), "PATH": found["PATH"] + ":/bin"}
    done = subprocess.run([mine, "--version"], env=named, capture_output=True, check=False)
    assert (done.returncode, b"name the real one" in done.stderr) == (1, True)


def test_a_wait_that_is_no_number(real: Path) -> None:
    given = environ(real, APPMUX_STDIO_WAIT="soon")
    done = subprocess.run([STAND_IN, "app-server"], env=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"APPMUX_STDIO_WAIT: 'soon' isn't a number of seconds" in done.stderr
