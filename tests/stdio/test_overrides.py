"""The overrides of a command line, as the stdio bridge and the relay read and send them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mux.stdio.codex_wrapper import as_door, override_texts
from mux.stdio.command_line import Arguments, plain_arguments
from mux.stdio.overrides import DoorOverrides, OverrideError

WORKSPACE = "sandbox_workspace_write"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("approval_policy=never", {"approval_policy": "never"}),
        (' approval_policy = "never" ', {"approval_policy": "never"}),
        ("approval_policy='on-failure'", {"approval_policy": "on-request"}),
        ('default_permissions=":workspace"', {"default_permissions": ":workspace"}),
        ("default_permissions=a b", {"default_permissions": "a b"}),
        (f"{WORKSPACE}.network_access=true", {f"{WORKSPACE}.network_access": True}),
        (
            f'{WORKSPACE}={{network_access=false, writable_roots=["/x"]}}',
            {f"{WORKSPACE}.network_access": False, f"{WORKSPACE}.writable_roots": ["/x"]},
        ),
        (
            "approval_policy={granular={rules=true}}",
            {"approval_policy": {"granular": {"rules": True}}},
        ),
    ],
)
def test_values_are_read_as_codex_reads_them(text: str, expected: dict[str, object]) -> None:
    assert DoorOverrides([text]).values == expected


def test_a_directory_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = DoorOverrides([f'{WORKSPACE}.writable_roots=["below"]'])
    assert read.values == {f"{WORKSPACE}.writable_roots": [f"{tmp_path}/below"]}


@pytest.mark.parametrize(
    "text",
    [
        "approval_policy",
        "approval_policy=sometimes",
        "sandbox_mode=readonly",
        f"{WORKSPACE}=true",
        f"{WORKSPACE}.network_access=maybe",
        f"{WORKSPACE}.writable_roots=/x",
    ],
)
def test_what_cannot_be_read_does_not_start(text: str) -> None:
    with pytest.raises(OverrideError, match=r"^`-c"):
        DoorOverrides([text])


def test_the_last_one_counts() -> None:
    assert DoorOverrides(["sandbox_mode=read-only", "sandbox_mode=workspace-write"]).values == {
        "sandbox_mode": "workspace-write"
    }


def test_the_header_names_keys_only_of_what_is_ignored() -> None:
    read = DoorOverrides(["sandbox_mode=read-only", "api_key=sécret"], ["--search"])
    assert b"cret" not in read.header()
    said = json.loads(read.header().partition(b": ")[2])
    assert said == {"values": {"sandbox_mode": "read-only"}, "ignored": ["--search", "-c api_key"]}
    assert "secret" not in read.warning
    assert "--search, -c api_key" in read.warning
    assert read.header().isascii()
    assert read.header().endswith(b"\r\n")
    assert DoorOverrides([]).header() == b""
    many = DoorOverrides([], [f"-c {'k' * 100}{n}" for n in range(100)])
    assert len(many.header()) < 4096  # the broker takes no more
    with pytest.raises(OverrideError, match="too long"):
        DoorOverrides([f"default_permissions={'x' * 5000}"]).header()


def test_what_does_not_hold() -> None:
    read = DoorOverrides(["sandbox_mode=read-only"])
    assert read.answered(b"sandbox_mode") == ""
    with pytest.raises(OverrideError, match="`sandbox_mode` doesn't hold here: this broker"):
        read.answered(None)
    with pytest.raises(OverrideError, match="lacks the scope"):
        read.answered(b"")
    loose = DoorOverrides(["sandbox_mode=danger-full-access"])
    assert loose.answered(b"") == "ignored: sandbox_mode: this client may not say it" + (
        " (it lacks the scope `admin`)"
    )
    assert loose.answered(b"") == ""  # said once, whatever comes back


def test_the_command_line_of_appmux_stdio() -> None:
    assert plain_arguments([]) == Arguments()
    line = "--wait=3 -c a=b --config c=d --config=e=f --socket /s"
    read = plain_arguments(line.split())
    assert read == Arguments(Path("/s"), 3.0, ("a=b", "c=d", "e=f"))
    for line in ("-c", "-c a", "-ca=b", "--wait x", "--help", "more"):
        assert plain_arguments(line.split()) is None


def test_the_command_line_of_appmux_codex() -> None:
    line = "-c sandbox_mode=read-only app-server -c model=x --config=approval_policy=never"
    assert as_door(line.split()) == ["-c model"]
    assert override_texts(line.split()) == ["sandbox_mode=read-only", "approval_policy=never"]
