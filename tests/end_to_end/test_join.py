"""`appmux join`: another machine's terminals, stdio programs and codex use a broker by a link."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mux.cli.devices.join import LinkError, how_to_attach, parse
from tests.certificates import issue
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import DEVICES_ONLY, listed, operator_of
from tests.end_to_end.native import Home, Native, private_home
from tests.end_to_end.peer import Peer, StdioLink

STATE = Path(".local", "state", "appmux")


async def joined(home: Home, operator: Peer, link: str, **environ: str) -> str:
    """Run `appmux join` on another machine, with the operator's yes; what it printed."""
    printed = []
    async with trio.open_nursery() as nursery:

        async def join() -> None:
            done = await trio.run_process(
                [sys.executable, "-m", "mux", "join", "--name", "laptop"],
                stdin=f"{link}\n".encode(),
                env=home.environ() | environ,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr.decode()
            printed.extend([done.stdout.decode(), done.stderr.decode()])

        nursery.start_soon(join)
        asked = await operator.wait_method("mux/pairing/asked")
        answer = {"id": asked["params"]["id"], "accept": True}
        await operator.request("mux/pairing/confirm", answer)
    assert asked["params"]["code"] in printed[1]
    return printed[0]


@asynccontextmanager
async def stdio(home: Home, **environ: str) -> AsyncIterator[Peer]:
    """`appmux stdio` on another machine."""
    process: trio.Process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mux", "stdio", "--wait", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=home.environ() | environ,
    )
    async with trio.open_nursery() as nursery:
        peer = Peer(StdioLink(process))
        nursery.start_soon(peer.listen)
        try:
            yield peer
        finally:
            await peer.close()
            with trio.move_on_after(10, shield=True):
                await process.wait()
            if process.returncode is None:
                process.kill()
            nursery.cancel_scope.cancel()


async def uses_it(broker: Native, operator: Peer, home: Home, **environ: str) -> None:
    """A program on the other machine works with the broker as the device that joined."""
    async with stdio(home, **environ) as peer:
        await peer.initialize("editor")
        assert (await peer.request("thread/list", {}))["data"] == []
        large = "x" * 300_000
        thread = await peer.start_thread(broker.home.work)
        turn = await peer.run_turn(thread, large)
        assert turn["status"] == "completed"
        listing = listed(await operator.request("mux/devices/list"))
        assert listing["laptop"]["attached"] == 1


async def test_a_second_machine_joins_by_a_link() -> None:
    async with brokered(*DEVICES_ONLY) as broker, operator_of(broker) as operator:
        begun = await operator.request("mux/pairing/begin", {"scopes": ["observe", "drive"]})
        address = broker.url.removeprefix("ws://")
        with private_home("http://127.0.0.1:9") as home:
            link = f"http://{address}/#pair={begun['ticket']}"
            text = await joined(home, operator, link)
            assert 'joined as "laptop", may drive, observe' in text
            kept = next(home.root.rglob("joined/*.token"))
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            token = kept.read_text().strip()
            assert token not in text
            assert f'APPMUX_TOKEN="$(cat {kept})"' in text
            assert f"codex --remote {broker.url} --remote-auth-token-env APPMUX_TOKEN" in text
            await uses_it(broker, operator, home)
            assert token not in broker.shown()
            await operator.request("mux/devices/revoke", {"name": "laptop"})
            done = await trio.run_process(
                [sys.executable, "-m", "mux", "stdio", "--wait", "0"],
                env=home.environ(),
                capture_stderr=True,
                check=False,
            )
            assert done.returncode == 1
            assert b"401" in done.stderr


async def test_several_brokers_are_joined_and_each_is_meant_by_its_name() -> None:
    async with (
        brokered(*DEVICES_ONLY) as one,
        brokered(*DEVICES_ONLY) as two,
        operator_of(one) as first,
        operator_of(two) as second,
    ):
        with private_home("http://127.0.0.1:9") as home:
            for broker, operator in ((one, first), (two, second)):
                begun = await operator.request(
                    "mux/pairing/begin", {"scopes": ["observe", "drive"]}
                )
                link = f"http://{broker.url.removeprefix('ws://')}/#pair={begun['ticket']}"
                await joined(home, operator, link)
            names = [each.url.removeprefix("ws://") for each in (one, two)]

            async def used() -> list[str]:
                shown = json.loads(await _join(home, "--list", "--json"))
                assert {each["url"] for each in shown} == {one.url, two.url}
                return [each["url"] for each in shown if each["used"]]

            assert await used() == [two.url]
            await uses_it(two, second, home)
            await uses_it(one, first, home, APPMUX_JOINED=names[0])
            await _join(home, "--use", names[0])
            assert await used() == [one.url]
            assert "called 127.0.0.1 was joined" in await _join(
                home, "--use", "127.0.0.1", status=1
            )
            await _join(home, "--leave", names[0])
            assert await _join(home, "--list") == f"  {two.url}\n"
            done = await trio.run_process(
                [sys.executable, "-m", "mux", "stdio", "--wait", "0"],
                env=home.environ() | {"APPMUX_JOINED": names[0]},
                capture_stderr=True,
                check=False,
            )
            assert f"no broker was joined as {names[0]}" in done.stderr.decode()


async def _join(home: Home, *arguments: str, status: int = 0) -> str:
    done = await trio.run_process(
        [sys.executable, "-m", "mux", "join", *arguments],
        env=home.environ(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return (done.stderr if status else done.stdout).decode()


async def test_over_tls(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    trusted = tmp_path / "authority.pem"
    issued.authority.cert_pem.write_to_path(str(trusted))
    files = ("--tls-cert", str(issued.cert), "--tls-key", str(issued.key))
    listen = ("--listen", "wss://127.0.0.1:0")
    async with (
        brokered(*listen, *files, *DEVICES_ONLY) as broker,
        operator_of(broker) as operator,
    ):
        port = (await broker.wait_log(r"listening on: wss://127.0.0.1:([0-9]+)"))[1]
        begun = await operator.request("mux/pairing/begin", {"scopes": ["observe", "drive"]})
        with private_home("http://127.0.0.1:9") as home:
            link = f"appmux://pair?scheme=wss&host=127.0.0.1&port={port}&ticket={begun['ticket']}"
            trust = {"SSL_CERT_FILE": str(trusted)}
            text = await joined(home, operator, link, **trust)
            assert "over TLS" in text
            await uses_it(broker, operator, home, **trust)


def test_what_it_says_of_the_way() -> None:
    where = Path("/state")
    tls = how_to_attach(parse("https://broker.example/#pair=t"), where)
    assert any("codex --remote wss://broker.example --remote-auth" in line for line in tls)
    tailnet = how_to_attach(parse("http://100.64.0.7:14500/#pair=t"), where)
    assert any("ssh -N -L 14500:100.64.0.7:14500 100.64.0.7" in line for line in tailnet)
    assert any("ws://127.0.0.1:14500" in line for line in tailnet)


@pytest.mark.parametrize(
    "text",
    ["", "https://broker.example", "https://broker.example/#pair=", "ftp://a/#pair=t", "appmux://x",
     "appmux://pair?scheme=ftp&host=a&port=1&ticket=t", "https:///#pair=t", "http://[::1/#pair=t",
     "appmux://pair?scheme=ws&host=a&port=x&ticket=t", "https://a/#pair=t%0d%0a"],
)  # fmt: skip
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(LinkError):
        parse(text)


def test_a_link_never_shows_its_ticket() -> None:
    assert "sesame" not in repr(parse("https://a/#pair=sesame"))
    with pytest.raises(LinkError) as wrong:
        parse("https://a/?pair=sesame")
    assert "sesame" not in str(wrong.value)
    assert os.environ.get("APPMUX_TOKEN") is None
    assert re.fullmatch(
        r"wss://\[fd7a::1\]:1",
        parse("appmux://pair?scheme=wss&host=fd7a%3A%3A1&port=1&ticket=t").url,
    )
    assert json.dumps(parse("http://[::1]:5/#pair=t").http) == '"http://[::1]:5"'
