"""Where the broker's socket is: the same answer that the settings give, without loading them."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
import pytest

from mux.config import locate
from mux.config.load import load
from mux.config.model import APP_NAME


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("APPMUX_STATE_DIR", "APPMUX_CONFIG", "APPMUX_CODEX_BIN", "APPMUX_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", ["state_dir", "codex_bin"])
@pytest.mark.parametrize("value", [None, "", "given", "./rel", "/abs/olute", "~/mine", "~nobody/x"])
@pytest.mark.parametrize("where", ["usual file", "named file", "environment", "both"])
def test_it_reads_as_the_settings_do(place: Path, key: str, value: str | None, where: str) -> None:
    environ: dict[str, str] = {}
    if value is not None:
        usual = platformdirs.user_config_path(APP_NAME) / "config.toml"
        file = place / "elsewhere" / "mine.toml" if where == "named file" else usual
        file.parent.mkdir(parents=True)
        in_file = "/in/file" if where == "both" else value
        if where != "environment" and (value or where == "both"):
            file.write_text(f"{key} = {json.dumps(in_file)}\n[log]\nlevel = 'info'\n")
        if where == "named file":
            environ["APPMUX_CONFIG"] = str(file)
            file.touch()
        if where in ("environment", "both"):
            environ[f"APPMUX_{key.upper()}"] = value
    config = load({}, environ).config
    assert locate.state_dir(environ) == config.state_dir
    assert locate.codex_bin(environ)[0] == config.codex_bin


def test_a_file_that_cannot_be_read_is_passed_over(place: Path) -> None:
    (place / "broken.toml").write_text("state_dir = [")
    assert locate.state_dir({"APPMUX_CONFIG": "broken.toml"}) == place / "state" / APP_NAME


def test_the_places_in_order(place: Path) -> None:
    control = place / "codex" / locate.CONTROL_SOCKET
    environ = {"CODEX_HOME": str(place / "codex"), "APPMUX_STATE_DIR": str(place)}
    assert list(locate.sockets(environ)) == [control]
    urls = ["ws://127.0.0.1:1", "unix:///run/a.sock", f"unix://{control}"]
    (place / locate.ADDRESS).write_text(json.dumps({"pid": 1, "listeners": urls}))
    assert list(locate.sockets(environ)) == [Path("/run/a.sock"), control]
    for named in ("x.sock", "unix://x.sock", str(place / "x.sock")):
        assert list(locate.sockets(environ | {locate.SOCKET_VARIABLE: named})) == [place / "x.sock"]


@pytest.mark.parametrize("text", ["", "[]", '{"listeners": 5}', "{}", "null"])
def test_an_address_that_is_garbled_is_none(place: Path, text: str) -> None:
    (place / locate.ADDRESS).write_text(text)
    assert locate.announced(place) is None
