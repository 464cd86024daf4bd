"""The command line: what reaches the commands, what is printed, and what it exits with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import structlog
import trio
from click.testing import CliRunner, Result

from mux import __version__
from mux.cli import main
from mux.config.model import FLAGS, Config
from mux.errors import AppmuxError

PATIENCE = 60
"""Seconds for one process; it needs less than one."""


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them, and give each test a codex."""
    for variable in [name for name in os.environ if name.startswith("APPMUX_")]:
        monkeypatch.delenv(variable)
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    codex = tmp_path / "bin" / "codex"
    codex.parent.mkdir()
    codex.write_text("#!/bin/sh\n")
    codex.chmod(0o755)
    monkeypatch.setenv("PATH", str(codex.parent), prepend=os.pathsep)


def run(*args: str) -> Result:
    """One command in this process; what isn't an exit comes out as itself."""
    return CliRunner().invoke(main.appmux, list(args), catch_exceptions=False)


def process(*args: str) -> subprocess.CompletedProcess[str]:
    """One command as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "mux", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What ``serve`` was called with; the broker itself isn't started."""
    configs: list[Config] = []

    async def serve(config: Config, *_: object) -> None:
        await trio.lowlevel.checkpoint()
        configs.append(config)

    monkeypatch.setattr("mux.server.serve.serve", serve)
    return configs


def test_version() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"appmux {__version__}\n", "")


def test_a_quick_command_does_not_load_the_broker() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mux", "--help"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"trio", "rich", "structlog", "jwt", "attrs", "mux.config.model"}


def test_every_command_of_the_table_is_there() -> None:
    context = click.Context(main.appmux)
    for name in main.appmux.list_commands(context):
        command = main.appmux.get_command(context, name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("command", ["serve", "status", "restart", "demo", "config"])
def test_every_command_is_listed_and_explains_itself(command: str) -> None:
    assert f"\n  {command} " in run("--help").stdout
    help_text = run(command, "-h").stdout
    assert f"Usage: appmux {command}" in help_text


def test_serve_hands_over_every_flag(
    served: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mux.server.observability.logs.configure", [].append)
    given = {
        "--listen": "ws://127.0.0.1:0",
        "--codex-bin": str(tmp_path / "bin" / "codex"),
        "--state-dir": "/state",
        "--ws-auth": "signed-bearer-token",
        "--ws-token-file": "/token",
        "--ws-token-sha256": "00ff",
        "--ws-shared-secret-file": "/secret",
        "--ws-issuer": "me",
        "--ws-audience": "you",
        "--ws-max-clock-skew-seconds": "7",
        "--tls-cert": "cert.pem",
        "--tls-key": "cert.key",
        "--log-level": "warning",
        "--log-format": "json",
    }
    assert set(given) == {flag for flag in FLAGS.values() if flag.startswith("--")}
    flat = [word for pair in given.items() for word in pair]
    done = run("serve", *flat, "--listen", "unix:///x.sock", "--", "-c", "a=1", "--", "--listen")
    assert (done.exit_code, done.output) == (0, "")
    (config,) = served
    assert config.listen == ("ws://127.0.0.1:0", "unix:///x.sock")
    assert config.codex_bin == tmp_path / "bin" / "codex"
    assert config.codex_args == ("-c", "a=1", "--", "--listen")
    assert config.state_dir == Path("/state")
    auth = config.auth
    assert (auth.mode, auth.token_file, auth.token_sha256, auth.shared_secret_file) == (
        "signed-bearer-token", Path("/token"), "00ff", Path("/secret"),
    )  # fmt: skip
    assert (auth.issuer, auth.audience, auth.max_clock_skew_seconds) == ("me", "you", 7)
    assert (config.tls.cert, config.tls.key) == (Path.cwd() / "cert.pem", Path.cwd() / "cert.key")
    assert (config.log.level, config.log.format) == ("warning", "json")


def test_serve_finds_codex_and_sets_up_the_log_before_it_starts(
    served: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[object] = []
    monkeypatch.setattr("mux.server.observability.logs.configure", logs.append)
    assert run("serve").exit_code == 0
    assert served[0].codex_bin == tmp_path / "bin" / "codex"
    assert logs == [Config().log]


def test_serve_takes_words_only_after_the_dashes() -> None:
    done = run("serve", "status")
    assert done.exit_code == 2
    assert "unexpected extra argument" in done.stderr


def test_a_wrong_listen_url_exits_2_in_the_app_servers_words(tmp_path: Path) -> None:
    done = process("serve", "--listen", "unix://", "--listen", "ws://localhost:1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: invalid value 'ws://localhost:1' for '--listen <URL>': invalid websocket --listen"
        " URL `ws://localhost:1`; expected `ws://IP:PORT`\n\n"
        "For more information, try '--help'.\n"
    )
    (tmp_path / "c.toml").write_text('listen = ["tcp://x"]')
    done = process("serve", "--config", str(tmp_path / "c.toml"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: invalid value 'tcp://x' for 'listen' (file ")


def test_a_wrong_setting_exits_1_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPMUX_LIMITS_IN_FLIGHT", "many")
    done = process("serve")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: environment APPMUX_LIMITS_IN_FLIGHT: limits.in_flight: expected a whole number of"
        ' at least 1 and at most 128, found "many"\n'
    )


def test_a_codex_that_is_not_there_names_who_said_so(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = process("serve", "--codex-bin", str(missing))
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Error: the codex binary {missing} (flag --codex-bin) doesn't exist: install it"
    )


class AppServerEnded(AppmuxError):
    def __init__(self, status: int) -> None:
        super().__init__("it ended")
        self.exit_status = status


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_expected_error_is_printed_also_from_inside_nurseries(
    depth: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def serve(config: Config, *_more: object) -> None:
        await trio.lowlevel.checkpoint()
        error: Exception = AppServerEnded(3)
        for _ in range(depth):
            error = ExceptionGroup("nursery", [error])
        raise error

    monkeypatch.setattr("mux.server.serve.serve", serve)
    monkeypatch.setattr("mux.server.observability.logs.configure", [].append)
    monkeypatch.setattr(sys, "argv", ["appmux", "serve"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 3
    assert capsys.readouterr().err == "Error: it ended\n"


def test_a_bug_is_shown_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(config: Config, *_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("nursery", [AppServerEnded(3), ZeroDivisionError()])

    monkeypatch.setattr("mux.server.serve.serve", serve)
    monkeypatch.setattr("mux.server.observability.logs.configure", [].append)
    monkeypatch.setattr(sys, "argv", ["appmux", "serve"])
    with pytest.raises(ExceptionGroup) as caught:
        main.main()
    assert caught.value.subgroup(ZeroDivisionError) is not None


def test_logging_is_left_alone_by_the_quick_commands() -> None:
    structlog.reset_defaults()  # other tests look at what is logged, and leave it configured
    run("config")
    assert not structlog.is_configured()


def test_status_restart_and_demo_hand_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    async def called(*args: object, **_options: object) -> int:
        await trio.lowlevel.checkpoint()
        calls.append(args)
        return 4

    def shown(state_dir: Path, **options: object) -> int:
        calls.append((state_dir, options))
        return 4

    async def restarted(*args: object) -> tuple[int, None]:
        return await called(*args), None

    monkeypatch.setattr("mux.cli.oversight.status.run", shown)
    monkeypatch.setattr("mux.cli.host.restart.run", restarted)
    monkeypatch.setattr("mux.cli.demo.run", called)
    assert run("status", "--json", "--state-dir", "/x").exit_code == 4
    assert run("restart", "--now", "--state-dir", "/x").exit_code == 4
    assert run("demo", "--hold", "--svg", "a.svg").exit_code == 4
    status, (config, now), demo = calls
    assert status == (Path("/x"), {"everything": False, "as_json": True})
    assert isinstance(config, Config)
    assert (config.state_dir, now) == (Path("/x"), True)
    assert demo == (tmp_path / "bin" / "codex", True, Path("a.svg"))


WITHOUT_JSON = {
    "serve": "runs until it is stopped, and logs as `log.format` says",
    "stdio": "what it writes is its client's",
    "completion": "prints a script",
    "open": "opens a browser; --print prints the link alone",
    "service logs": "is journalctl or tail; the lines are JSON where `log.format` is json",
    "service": "a group",
    "tailnet": "a group",
}
"""Commands that have no result for a program, and why."""


def every_command(
    group: click.Group = main.appmux, before: str = ""
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{before} {name}".strip(), command
        if isinstance(command, click.Group):
            yield from every_command(command, name)


def test_every_command_speaks_to_programs_and_says_what_its_exit_status_means() -> None:
    for name, command in every_command():
        flags = {flag for each in command.params for flag in each.opts}
        assert ("--json" in flags) != (name in WITHOUT_JSON), name
        if WITHOUT_JSON.get(name) != "a group":
            assert (command.epilog or "").startswith("Exit status: "), name


def test_no_line_of_any_help_is_cut_or_wider_than_80_columns() -> None:
    for name, _ in every_command():
        done = CliRunner().invoke(main.appmux, [*name.split(), "--help"], env={"COLUMNS": "80"})
        assert max(map(len, done.output.splitlines())) <= 80, name
        assert "..." not in done.output.partition("Options:")[2], name


def test_alone_it_shows_the_status_or_how_to_begin() -> None:
    done = process()
    assert (done.returncode, done.stdout) == (1, "")
    assert "No appmux runs here yet" in done.stderr
    assert "appmux setup" in done.stderr


def test_the_help_is_grouped_and_no_line_is_cut_at_80_columns() -> None:
    text = CliRunner().invoke(main.appmux, ["--help"], env={"COLUMNS": "80"}).output
    assert max(map(len, text.splitlines())) <= 80
    for section, commands in main.SECTIONS.items():
        assert f"\n{section}:\n" in text
        for name, (_, line) in commands.items():
            assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("word", "said"), [("stop", "appmux service stop"), ("logs", "appmux service logs")]
)
def test_words_that_people_try_name_the_command(word: str, said: str) -> None:
    done = run(word)
    assert done.exit_code == 2
    assert said in done.stderr


def test_commands_are_completed_without_being_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mux"],
        env=os.environ
        | {"_APPMUX_COMPLETE": "zsh_complete", "COMP_WORDS": "appmux st", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert re.findall(r"plain\n(\w+)\n(.*)\n", done.stdout) == [
        (name, main.COMMANDS[name][1]) for name in ("status", "stdio")
    ]
    assert "| trio" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_a_script_that_it_takes(shell: str) -> None:
    script = run("completion", shell).stdout
    assert "_APPMUX_COMPLETE=" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_config_prints_toml_that_it_takes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPMUX_LIMITS_DRAIN", "3")
    monkeypatch.setenv("APPMUX_AUTH_ISSUER", 'a "b" \\ #c')
    first = run("config", "--listen", "unix://", "--", "-c", "x=1")
    assert first.exit_code == 0
    values = tomllib.loads(first.stdout)
    assert values["limits"]["drain"] == 3.0
    assert values["auth"] == {"issuer": 'a "b" \\ #c'}
    assert values["codex_args"] == ["-c", "x=1"]
    origin = {
        line.split()[0]: line.rpartition("  # from ")[2] for line in first.stdout.splitlines()
    }
    assert origin["listen"] == "flag --listen"
    assert origin["limits.drain"] == "environment APPMUX_LIMITS_DRAIN"
    assert origin["codex_args"] == "arguments after --"
    assert origin["state_dir"] == "default"
    monkeypatch.delenv("APPMUX_LIMITS_DRAIN")
    monkeypatch.delenv("APPMUX_AUTH_ISSUER")
    file = tmp_path / "again.toml"
    file.write_text(first.stdout)
    assert tomllib.loads(run("config", "--config", str(file)).stdout) == values


def test_config_for_programs() -> None:
    shown = json.loads(run("config", "--json", "--log-level", "debug").stdout)
    assert shown["log.level"] == {"value": "debug", "from": "flag --log-level"}
    assert shown["codex_bin"] == {"value": None, "from": "default"}
    assert shown["listen"]["value"] == list(Config().listen)
