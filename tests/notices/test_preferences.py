"""What a device wants to be told of: quiet hours, snoozes, and what is wrong with a rule."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from mux.core.extension.notices import RuleSet
from mux.core.policy.notice import Rule
from mux.notices.preferences import MOST_RULES, NoticePreferences, PreferenceError, open_preferences

VIENNA = ZoneInfo("Europe/Vienna")


def at(hour: str, zone: Any = VIENNA) -> float:
    return datetime.datetime.fromisoformat(f"2026-11-24T{hour}").replace(tzinfo=zone).timestamp()


def wishes(where: Path, now: list[float], **settings: Any) -> NoticePreferences:
    return open_preferences(where, lambda: now[0], **settings)


@pytest.mark.parametrize(
    ("start", "end", "hour", "quiet"),
    [
        ("22:00", "07:00", "23:30", True),
        ("22:00", "07:00", "06:59", True),
        ("22:00", "07:00", "07:00", False),
        ("22:00", "07:00", "12:00", False),
        ("12:00", "13:00", "12:30", True),
        ("12:00", "13:00", "13:00", False),
    ],
)
def test_quiet_hours_go_over_midnight(
    start: str, end: str, hour: str, quiet: bool, tmp_path: Path
) -> None:  # fmt: skip
    there = wishes(tmp_path, [at(hour)])
    there.set("d", [RuleSet("quiet", start=start, end=end, timeZone="Europe/Vienna")])
    assert there.now("d") == (Rule(not quiet, "quiet hours"),)


def test_a_snooze_ends_by_itself_and_can_be_ended(tmp_path: Path) -> None:
    now = [1000.0]
    there = wishes(tmp_path, now)
    there.snooze("d", 60, "t", None)
    there.snooze("d", 600, None, "approval")
    assert there.now("d") == (
        Rule(on=False, why="snoozed", thread="t"),
        Rule(on=False, why="snoozed", kind="approval"),
    )
    now[0] = 1061.0
    assert there.now("d") == (Rule(on=False, why="snoozed", kind="approval"),)
    there.snooze("d", 0, None, "approval")
    assert there.now("d") == ()
    for seconds in (-1, float("nan"), 1e12):
        with pytest.raises(PreferenceError):
            there.snooze("d", seconds, None, None)


def test_they_are_kept(tmp_path: Path) -> None:
    rules = [RuleSet("off", kind="goal-reached"), RuleSet("on", threadId="t")]
    wishes(tmp_path, [0.0]).set("d", rules)
    again = wishes(tmp_path, [0.0], quiet="22:00-07:00", off=["question"])
    assert again.of("d") == rules
    assert [each.mode for each in again.default] == ["quiet", "off"]
    again.forget("d")
    again.forget("d")
    assert again.of("d") == []
    again.file.flush()
    assert wishes(tmp_path, [0.0]).of("d") == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (RuleSet("quiet"), "`start` as HH:MM"),
        (RuleSet("quiet", start="22:00", end="24:00"), "`end` as HH:MM"),
        (RuleSet("quiet", start="22:00", end="07:00", timeZone="Mars/Olympus"), "no time zone"),
        (RuleSet("quiet", start="22:00", end="07:00", timeZone="../etc/passwd"), "no time zone"),
    ],
)
def test_a_wrong_rule_is_told_and_changes_nothing(rule: RuleSet, told: str, tmp_path: Path) -> None:
    there = wishes(tmp_path, [0.0])
    with pytest.raises(PreferenceError, match=told):
        there.set("d", [rule])
    with pytest.raises(PreferenceError, match="at most"):
        there.set("d", [RuleSet("on")] * (MOST_RULES + 1))
    assert there.of("d") == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quiet": "at night"}, "22:00-07:00"),
        ({"quiet": "22:00-25:00"}, "`end` as HH:MM"),
        ({"off": ["gossip"]}, "no kind is called 'gossip'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match=told):
        wishes(tmp_path, [0.0], **settings)


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}', '{"version": 1, "devices": [1]}'])
def test_a_damaged_file_is_set_aside_with_a_word(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notices.json"
    path.write_text(text)
    with capture_logs() as logs:
        there = wishes(tmp_path, [0.0])
    (told,) = logs
    assert f"{path} is damaged: set aside" in told["event"]
    assert Path(told["kept"]).read_text() == text
    there.set("d", [RuleSet("off")])
    assert wishes(tmp_path, [0.0]).of("d") == [RuleSet("off")]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notices.json"
    path.write_text('{"version": 9}')
    with pytest.raises(PreferenceError, match="by a newer appmux"):
        wishes(tmp_path, [0.0])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PreferenceError, match=rf"{path}: it is a pipe .*Restore it from"):
        wishes(tmp_path, [0.0])


def test_a_revoked_device_s_wishes_go_once_the_disk_takes_it(tmp_path: Path) -> None:
    there = wishes(tmp_path, [0.0])
    there.set("d", [RuleSet("off")])
    in_the_way = tmp_path / "notices.json.new"
    in_the_way.mkdir()
    with pytest.raises(PreferenceError, match="nothing was changed"):
        there.set("d", [])
    there.forget("d")
    there.file.flush()
    assert "stay in it" in (there.file.trouble or "")
    in_the_way.rmdir()
    there.file.flush()
    assert there.file.trouble is None
    assert wishes(tmp_path, [0.0]).of("d") == []
