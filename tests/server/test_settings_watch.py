"""The settings that wait for a restart, as `mux/status` tells them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mux.config.load import load
from mux.server.settings_watch import SettingsWatch


def test_a_changed_file_is_told_key_by_key_until_it_is_as_before(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("limits.drain = 5\n")
    read = partial(load, {"log.level": "error"}, {}, file)
    watch = SettingsWatch(read(), read)
    assert watch.status() == {
        "file": str(file), "changed": [], "trouble": None, "authMode": None,
    }  # fmt: skip
    # A flag wins over the file, so its key holds what it held.
    file.write_text('limits.drain = 6\naudit.text = true\nlog.level = "debug"\n')
    assert watch.status()["changed"] == ["limits.drain", "audit.text"]
    file.write_text("limits.drain = 5.0 # as ever\n")
    assert watch.status()["changed"] == []


def test_a_file_that_cannot_be_used_is_told_and_one_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("limits.drain = 5\n")
    read = partial(load, {}, {"APPMUX_CONFIG": str(file)})
    watch = SettingsWatch(read(), read)
    file.write_text('limits.drain = "long"\n')
    told = watch.status()
    assert told["changed"] == []
    assert "limits.drain: expected" in told["trouble"]
    file.unlink()
    told = watch.status()
    assert told["file"] is None
    assert "can't be read" in told["trouble"]
