"""The app-server's own listener, asked what `jwts` and `knocks` claim that it answers.

What passes here is passed by `mux.access.authentication` and `mux.downstream.http.routes` in
`test_authentication` and `test_routes`.
"""

from __future__ import annotations

import time
from pathlib import Path

import trio

from tests import jwts, knocks
from tests.end_to_end.native import Native, native_ws


async def asked(running: Native, sent: bytes) -> tuple[int, str]:
    port = int(running.url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        reply = await knocks.ask(stream, sent)
    return reply.status, reply.body


def upgrade(*authorizations: bytes) -> bytes:
    head, _, rest = knocks.request("GET /", *knocks.UPGRADE).partition(b"\r\n\r\n")
    lines = [head, *(b"authorization: " + each for each in authorizations)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + rest


async def test_http(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(knocks.TOKEN)
    auth = ("--ws-auth", "capability-token", "--ws-token-file", str(token))
    async with native_ws(*auth) as running:
        answers = {name: await asked(running, case[0]) for name, case in knocks.CASES.items()}
    assert answers == {name: case[1:] for name, case in knocks.CASES.items()}


async def test_capability_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"\n {jwts.CAPABILITY_TOKEN} \n")
    auth = ("--ws-auth", "capability-token", "--ws-token-file", str(token))
    async with native_ws(*auth) as running:
        answers = {
            name: await asked(running, upgrade(*headers))
            for name, (headers, _) in jwts.HEADERS.items()
        }
    assert answers == {name: expected(text) for name, (_, text) in jwts.HEADERS.items()}


async def test_signed_bearer_token(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" " + jwts.SECRET + b"\n")
    options = ("--ws-shared-secret-file", str(secret), "--ws-issuer", f" {jwts.ISSUER} ")
    auth = ("--ws-auth", "signed-bearer-token", *options, "--ws-audience", jwts.AUDIENCE)
    async with native_ws(*auth) as running:
        answers, expectations = {}, {}
        for name in jwts.CASES:
            token, text = jwts.cases(int(time.time()))[name]
            answers[name] = await asked(running, upgrade(b"Bearer " + token.encode()))
            expectations[name] = expected(text)
    assert answers == expectations


def expected(text: str) -> tuple[int, str]:
    return (101, "") if text == jwts.LET_IN else (401, text)
