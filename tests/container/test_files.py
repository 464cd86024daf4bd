"""The Dockerfile and the Compose file: linted, and held against each other and the settings.

Nothing is built: that takes a builder and the network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from mux.config.addresses import parse_listen_url, refuse_open_door
from mux.config.load import load
from tests.page.node import node

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ROOT / "contrib" / "container"
DOCKERFILE: Final = FILES / "Dockerfile"
COMPOSE: Final = FILES / "compose.yaml"
LINTERS: Final = Path(__file__).parent / "node_modules"


def lint(package: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if not (LINTERS / package).exists():
        pytest.skip(f"npm could not install {package}: `make newest`")
    command = [str(node()), str(LINTERS / package / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_dockerfile_is_linted(tmp_path: Path) -> None:
    done = lint("dockerfile-utils", "bin/dockerfile-utils", "lint", str(DOCKERFILE))
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM x\nHEALTHCHECK --intervall=3s CMD x\n")
    assert lint("dockerfile-utils", "bin/dockerfile-utils", "lint", str(wrong)).returncode


def test_the_compose_file_is_linted(tmp_path: Path) -> None:
    """Warnings are matters of taste (the order of keys); an error is a key that isn't one."""
    done = lint("dclint", "bin/dclint.cjs", "--quiet", str(COMPOSE))
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("restart:", "restarts:"))
    assert lint("dclint", "bin/dclint.cjs", "--quiet", str(wrong)).returncode


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, each on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def test_what_it_runs_is_a_command_of_ours() -> None:
    """Its flags are those of `appmux serve`, and nobody gets in without a token."""
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["appmux"]
    serve, *flags = json.loads(arguments("CMD")[0])
    assert serve == "serve"
    given: dict[str, list[str]] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        given.setdefault(flag, []).append(value)
    assert given.keys() == {"--listen", "--ws-auth"}
    listen, [mode] = given["--listen"], given["--ws-auth"]
    config = load({"listen": tuple(listen), "auth.mode": mode}, {}).config
    parsed = [parse_listen_url(url, Path("/home/appmux/.codex")) for url in config.listen]
    refuse_open_door(parsed, config.auth.mode)


def test_the_two_files_agree() -> None:
    [port] = arguments("EXPOSE")
    assert f"ws://0.0.0.0:{port}" in arguments("CMD")[0]
    compose = COMPOSE.read_text()
    assert re.search(rf'^ *- "127\.0\.0\.1:{port}:{port}"', compose, re.MULTILINE)
    for volume in json.loads(arguments("VOLUME")[0]):
        assert re.search(rf"^ *- \w+:{volume}$", compose, re.MULTILINE), volume
    [named] = re.findall(r"dockerfile: (\S+)", compose)
    [context] = re.findall(r"context: (\S+)", compose)
    assert (FILES / context / named).resolve() == DOCKERFILE


def test_its_parts_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [image, *_] = arguments("FROM")
    minor = int(re.match(r"python:3\.(\d+)-slim", image)[1])  # type: ignore[index]
    assert minor >= int(project["requires-python"].rpartition(".")[2])
    for command in arguments("RUN"):
        checked = subprocess.run(
            [shutil.which("sh") or "sh", "-n"], input=command, text=True, check=False
        )
        assert checked.returncode == 0, command
        for extra in re.findall(r"'\.\[(\w+)\]'", command):
            assert extra in project["optional-dependencies"]
    [health] = arguments("HEALTHCHECK")
    _, flag, program = json.loads(health.partition("CMD ")[2])
    assert flag == "-c"
    compile(program, "HEALTHCHECK", "exec")


def test_the_page_says_how_it_was_tried() -> None:
    page = (ROOT / "docs" / "container.md").read_text()
    assert "never built or run" in page
    for command in re.findall(r"docker compose -f (\S+)", page):
        assert (ROOT / command).exists()
