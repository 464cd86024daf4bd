"""Which codex is found, and what is said when none is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mux.config.codex_binary import CodexError, codex_home, find_codex, search_path, usual_places
from mux.upstream.version import codex_version


def program(path: Path, text: str = "echo codex-cli 1.2.3") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def package(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    """Install a codex package whose binary is ``path``; None removes it."""
    if path is None:
        monkeypatch.setitem(sys.modules, "codex_cli_bin", None)  # import then fails
        return

    def bundled_codex_path() -> Path:
        if not path.exists():
            raise FileNotFoundError(f"openai-codex-cli-bin has no {path}")
        return path

    module = ModuleType("codex_cli_bin")
    monkeypatch.setattr(module, "bundled_codex_path", bundled_codex_path, raising=False)
    monkeypatch.setitem(sys.modules, "codex_cli_bin", module)


def complaint(config_bin: Path | None, environ: dict[str, str], origin: str = "flag x") -> str:
    with pytest.raises(CodexError) as caught:
        find_codex(config_bin, environ, origin)
    assert caught.value.exit_status == 1
    return str(caught.value)


def test_order_of_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = program(tmp_path / "given")
    named = program(tmp_path / "named")
    on_path = program(tmp_path / "bin" / "codex")
    packaged = program(tmp_path / "package" / "codex")
    package(monkeypatch, packaged)
    environ = {"APPMUX_CODEX_BIN": str(named), "PATH": str(on_path.parent)}
    assert find_codex(given, environ) == given
    assert find_codex(None, environ) == named
    assert find_codex(None, {**environ, "APPMUX_CODEX_BIN": ""}) == on_path
    assert find_codex(None, {"PATH": str(tmp_path)}) == packaged


def test_the_usual_places_after_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where npm, brew and pip put it, for a service whose PATH is short; npm's newest first."""
    package(monkeypatch, None)
    nvm = tmp_path / ".nvm" / "versions" / "node"
    old, new = (program(nvm / version / "bin" / "codex") for version in ("v9.8.0", "v20.11.1"))
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert find_codex(None, environ) == new
    found = (search_path(environ) or "").split(os.pathsep)
    assert found[0] == str(tmp_path)
    assert found[-2:] == [str(new.parent), str(old.parent)]
    new.unlink()
    assert find_codex(None, environ) == old
    in_home = program(tmp_path / ".local" / "bin" / "codex")
    assert find_codex(None, environ) == in_home
    assert find_codex(None, {**environ, "PATH": str(old.parent)}) == old
    assert search_path({"PATH": "x"}) == "x"
    assert search_path({}) is None


def test_a_bare_name_is_a_command_on_path(tmp_path: Path) -> None:
    nightly = program(tmp_path / "bin" / "codex-nightly")
    environ = {"PATH": str(nightly.parent)}
    assert find_codex(Path("codex-nightly"), environ) == nightly
    said = complaint(Path("codex-nightly"), {"PATH": str(tmp_path)})
    assert said.startswith("no `codex-nightly` on PATH (flag x): install it")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = program(tmp_path / "bin" / "codex")
    monkeypatch.chdir(tmp_path)
    assert find_codex(Path("bin/codex"), {}) == here
    assert find_codex(None, {"PATH": "bin"}) == here


def test_one_that_is_named_but_unusable_is_an_error_not_a_reason_to_look_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(monkeypatch, program(tmp_path / "package" / "codex"))
    missing, plain = tmp_path / "missing", tmp_path / "plain"
    plain.write_text("")
    assert complaint(missing, {}).startswith(f"the codex binary {missing} (flag x) doesn't exist")
    assert f"{tmp_path} (flag x) is not a file" in complaint(tmp_path, {})
    said = complaint(None, {"APPMUX_CODEX_BIN": str(plain)})
    assert f"{plain} (environment APPMUX_CODEX_BIN) is not executable: `chmod +x`" in said


def test_none_anywhere_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(monkeypatch, None)
    said = complaint(None, {"PATH": str(tmp_path)})
    for word in ("pip install 'appserver-mux[codex]'", "npm install -g", "--codex-bin"):
        assert word in said


def test_a_package_without_its_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(monkeypatch, tmp_path / "gone")
    assert "reinstall it with `pip install" in complaint(None, {"PATH": str(tmp_path)})


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert codex_home({}) == codex_home({"CODEX_HOME": ""}) == tmp_path / ".codex"
    assert codex_home({"CODEX_HOME": "own"}) == tmp_path / "own"


async def test_version_of_the_real_one() -> None:
    pytest.importorskip("codex_cli_bin")
    version = await codex_version(find_codex(None, {"PATH": os.devnull}))
    assert tuple(map(int, version.split("."))) >= (0, 163, 0)


async def test_version_keeps_what_follows_the_numbers(tmp_path: Path) -> None:
    path = program(tmp_path / "codex", "echo codex-cli 1.2.3-alpha.4; echo more")
    assert await codex_version(path) == "1.2.3-alpha.4"


async def test_something_else_is_not_codex(tmp_path: Path) -> None:
    with pytest.raises(CodexError, match=r"is not codex: .* exited with 3 and said 'hello'"):
        await codex_version(program(tmp_path / "other", "echo hello; exit 3"))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\0\0\0\0")
    broken.chmod(0o755)
    with pytest.raises(CodexError, match="can't be run: Exec format error"):
        await codex_version(broken)


async def test_one_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mux.upstream.version.VERSION_DEADLINE", 0.05)
    with pytest.raises(CodexError, match="gave no answer in 0 s"):
        await codex_version(program(tmp_path / "silent", "exec sleep 600"))


@pytest.mark.parametrize(
    "tree",
    [
        ".nvm/versions/node/{}/bin",
        ".local/share/fnm/node-versions/v{}/installation/bin",
        ".local/share/mise/installs/node/{}/bin",
        ".asdf/installs/nodejs/{}/bin",
    ],
)
def test_the_newest_of_each_manager_of_versions(tmp_path: Path, tree: str) -> None:
    made = [tmp_path / tree.format(version) for version in ("9.8.0", "20.11.1", "20.9.0")]
    for each in made:
        each.mkdir(parents=True)
    found = [place for place in usual_places(tmp_path) if place in made]
    assert found == [made[1], made[2], made[0]]
