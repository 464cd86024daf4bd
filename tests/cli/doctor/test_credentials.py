"""The doctor's looks at tokens and certificates."""

from __future__ import annotations

import datetime
from pathlib import Path

import attrs
import pytest
import trustme

from mux.cli.doctor.credentials import credentials
from mux.cli.doctor.finding import Finding
from mux.config.model import Auth, Config, Tls


def found(config: Config) -> list[tuple[str, str]]:
    return [(each.about, each.verdict) for each in credentials(config)]


def with_token(path: Path) -> Config:
    return Config(auth=Auth(mode="capability-token", token_file=path))


def test_a_token_for_its_owner_alone_is_well(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 43)
    token.chmod(0o600)
    assert found(with_token(token)) == [("credentials", "well")]
    assert found(Config()) == []


@pytest.mark.parametrize(("mode", "words"), [(0o644, "everybody"), (0o640, "its group")])
def test_a_token_that_others_may_read_is_wrong(tmp_path: Path, mode: int, words: str) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 43)
    token.chmod(mode)
    (finding,) = credentials(with_token(token))
    assert finding.verdict == "wrong"
    assert finding.says == f"{words} on this host may read {token} (mode {mode:o})"
    assert f"chmod 600 {token}" in finding.remedy


@pytest.mark.parametrize("made", [None, ""])
def test_a_token_that_is_missing_or_empty_is_wrong(tmp_path: Path, made: str | None) -> None:
    token = tmp_path / "token"
    if made is not None:
        token.write_text(made)
    (finding,) = credentials(with_token(token))
    assert finding.verdict == "wrong"
    assert str(token) in finding.says


def certificate(folder: Path, *, days: float) -> Config:
    """Settings with a certificate that ends in so many days."""
    authority = trustme.CA()
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    begin = end - datetime.timedelta(days=90)
    made = authority.issue_cert("box.example", not_after=end, not_before=begin)
    cert, key = folder / "cert.pem", folder / "key.pem"
    made.private_key_and_cert_chain_pem.write_to_path(cert)
    made.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return Config(tls=Tls(cert=cert, key=key))


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [
        (60, "well", "until"),
        (13, "note", "whatever renews it should have done so"),
        (-1, "wrong", "has expired"),
    ],
)
def test_a_certificate_by_its_days(tmp_path: Path, days: float, verdict: str, words: str) -> None:
    (finding,) = credentials(certificate(tmp_path, days=days))
    assert finding.verdict == verdict
    assert words in finding.says


def test_a_broker_that_serves_an_older_one_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = certificate(tmp_path, days=60)
    monkeypatch.setattr("mux.host.readiness.served_certificate", lambda *_: b"an older one")
    assert found(config) == [("certificate", "well"), ("certificate served", "wrong")]


def test_a_certificate_that_cannot_be_used_is_wrong(tmp_path: Path) -> None:
    config = certificate(tmp_path, days=60)
    other = attrs.evolve(config.tls, key=tmp_path / "gone.pem")
    (finding,) = credentials(attrs.evolve(config, tls=other))
    assert isinstance(finding, Finding)
    assert (finding.about, finding.verdict) == ("certificate", "wrong")
