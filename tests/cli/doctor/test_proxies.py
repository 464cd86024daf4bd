"""`appmux doctor` on what stands before the broker, and where nothing must."""

from __future__ import annotations

from pathlib import Path

import pytest

from mux.cli.doctor import proxies
from mux.cli.doctor.finding import Finding
from mux.config.load import load

OPEN = 'listen = ["unix://", "ws://127.0.0.1:14500"]\n'
TOKEN = OPEN + '[auth]\nmode = "device-token"\n'
ORIGIN = '[web]\norigins = ["https://appmux.example"]\n'


def found(tmp_path: Path, text: str) -> list[Finding]:
    file = tmp_path / "config.toml"
    file.write_text(text)
    environ = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path)}
    return list(proxies.proxies(load({}, environ, file).config, environ))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = ["unix://"]\n', []),
        (TOKEN, []),
        (OPEN, ["ws://127.0.0.1:14500 asks for no token: a proxy or tunnel before it would let"]),
        (OPEN + ORIGIN, ["So no proxy brings a page to https://appmux.example"]),
        (TOKEN + ORIGIN, ["is known by the proxy's address alone"]),
        (TOKEN.replace("ws://127", "wss://127") + ORIGIN, []),
        (TOKEN + ORIGIN + 'trusted_proxies = ["127.0.0.1"]\n', []),
        (TOKEN + '[web]\ntrusted_proxies = ["127.0.0.1"]\n', ["no page's name: none is reached"]),
        (
            (TOKEN + ORIGIN).replace("ws:", "ws+local:") + 'trusted_proxies = ["127.0.0.0/8"]\n',
            ["who comes from 127.0.0.1 isn't `local`"],
        ),
        ('listen = ["nonsense"]\n', []),
    ],
)
def test_what_is_said_of_proxies(tmp_path: Path, text: str, said: list[str]) -> None:
    findings = found(tmp_path, text)
    assert [each.verdict for each in findings] == ["note"] * len(said)
    for finding, words in zip(findings, said, strict=True):
        assert words in finding.says
        assert finding.remedy
