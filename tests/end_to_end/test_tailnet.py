"""https on the Tailnet: a real broker beside a stand-in of tailscaled."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.end_to_end.devices import pair
from tests.end_to_end.peer import PATIENCE, RpcError, connect
from tests.end_to_end.scenes import ended, eventually
from tests.tailnet.serving import ADDRESS, choice, served
from tests.tailnet.stand_in import DENIED, NAME

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is there on Linux alone")

PAGE = "accept: text/html"
NOBODY = r"refused|all attempts"


def has_v6() -> bool:
    with socket.socket(socket.AF_INET6) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            return False
    return True


async def test_the_page_is_served_by_the_name_and_by_nothing_else(tmp_path: Path) -> None:
    addresses = (ADDRESS, "::1") if has_v6() else (ADDRESS,)
    async with served(tmp_path, fields={"addresses": addresses}) as here:
        said = await here.enable()
        assert (said["url"], said["trouble"]) == (f"{here.origin}/", None)
        assert said["addresses"] == list(addresses)
        for address in addresses:
            async with here.encrypted(address):
                pass
        page = await here.get("/", PAGE)
        assert page.status == 200
        assert "<!doctype html>" in page.body
        by_address = await here.get("/", PAGE, host=ADDRESS)
        assert by_address.status == 403
        # Neither has a page of another origin anything here, nor one that the address had.
        for origin in ("https://evil.ts.net", f"https://{ADDRESS}:{here.port}"):
            assert (await here.get("/", f"origin: {origin}")).status == 403
        assert (await here.get("/", f"origin: {here.origin}")).status == 200
        # The name is nobody's on the other listeners.
        report = await here.operator.request("mux/status")
        assert f"wss://{NAME}:{here.port}" in [each["url"] for each in report["listeners"]]
        assert report["tailnet"] == said
        begun = await here.operator.request("mux/pairing/begin", {"scopes": ["observe"]})
        assert begun["origins"] == [here.origin]


async def test_a_device_comes_in_and_nobody_without_a_token(tmp_path: Path) -> None:
    async with served(tmp_path) as here:  # an open broker: on loopback everybody is let in
        await here.enable()
        token = await pair(here.broker, here.operator, "phone", "observe")
        async with here.client(token) as phone:
            assert (await phone.request("mux/status"))["clients"]
        async with here.encrypted() as stream:
            with pytest.raises(Exception, match="401"):
                async with connect(stream, f"{NAME}:{here.port}", "/"):
                    pass


async def test_plain_http_is_shown_the_way(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        for sent in (f"GET /x HTTP/1.1\r\nhost: {NAME}\r\n\r\n", "NONSENSE\r\n\r\n"):
            async with await trio.open_tcp_stream(ADDRESS, here.port) as stream:
                await stream.send_all(sent.encode())
                said = b""
                with trio.fail_after(PATIENCE):
                    while piece := await stream.receive_some():
                        said += piece
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert body == f"https is needed here: {here.origin}/\n".encode()


async def test_it_is_renewed_by_itself_and_nobody_is_cut(tmp_path: Path) -> None:
    short = datetime.timedelta(days=15)  # as of an old tailscaled, which renews when 14 are left
    async with served(tmp_path, fields={"left": short, "knows_validity": False}) as here:
        said = await here.enable()
        assert said["trouble"] is None
        before = await here.until_of()
        token = await pair(here.broker, here.operator, "phone", "observe")
        async with here.client(token) as phone:
            here.daemon.renew()
            await here.status()  # it looks, as it does each minute
            assert await here.until_of() - before > 70 * 86_400
            assert here.daemon.orders() == 2
            await here.status()
            assert here.daemon.orders() == 2  # this one lasts
            assert (await phone.request("mux/status"))["clients"]


async def test_a_renewal_that_fails_is_told_from_the_first_day(tmp_path: Path) -> None:
    left = datetime.timedelta(days=20)
    async with served(tmp_path, fields={"left": left, "knows_validity": False}) as here:
        await here.enable()
        here.daemon.refusal = (500, "acme: order failed")
        said = await here.status()
        assert said["url"] == f"{here.origin}/"  # it lasts for 20 days
        assert "acme: order failed" in said["trouble"]
        await here.broker.wait_log(r"acme: order failed")
        shown = await here.appmux("status")
        assert "acme: order failed" in shown.stdout
        looked = json.loads((await here.appmux("doctor", "--json")).stdout)
        [found] = [each for each in looked["findings"] if each["about"] == "https (Tailnet)"]
        assert found["verdict"] == "wrong"
        assert "acme: order failed" in found["says"]
        here.daemon.refusal, here.daemon.left = None, datetime.timedelta(days=90)
        here.daemon.renew()
        # Let's Encrypt lets nobody try often: within the hour the refusal stands.
        assert (await here.status())["trouble"] == said["trouble"]
        assert (await here.enable())["trouble"] is None  # a person may try at once
        await here.broker.wait_log("https on the Tailnet is well again")


async def test_one_that_is_late_is_told_though_tailscaled_says_nothing(tmp_path: Path) -> None:
    late = datetime.timedelta(days=13, hours=12)
    async with served(tmp_path, fields={"left": late, "knows_validity": False}) as here:
        said = await here.enable()
        assert "ends in 13 days, and tailscaled has no newer one" in said["trouble"]
        assert said["url"]


async def test_whoever_may_not_is_told_what_to_run_and_it_opens_once_they_may(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, fields={"refusal": DENIED}) as here:
        said = await here.enable()
        assert said["url"] is None
        assert "operator alone" in said["trouble"]
        assert "sudo tailscale set --operator=" in said["remedy"]
        here.daemon.refusal = None
        assert (await here.status())["url"]  # by itself, at the next look
        here.daemon.state = "Stopped"
        said = await here.status()
        assert said["trouble"] == "Tailscale is stopped here"
        assert said["url"]  # what is there stays


async def test_a_tailscaled_that_hangs_or_restarts_ends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        token = await pair(here.broker, here.operator, "phone", "observe")
        async with here.client(token) as phone:
            here.daemon.mute = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.status)
                await eventually(lambda: here.daemon.asked[-1].endswith("peers=false"), "a look")
                assert (await phone.request("mux/status"))["clients"]  # nobody waits for it
                here.daemon.stop()
            said = await here.status()
            assert said["trouble"] == "tailscaled doesn't run here"
            assert said["url"]
            here.daemon.mute = False
            here.daemon.start()
            assert (await here.status())["trouble"] is None
            assert (await phone.request("mux/status"))["clients"]


async def test_another_name_needs_another_yes(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        old = here.origin
        here.daemon.name = "attic.tail1234.ts.net"
        said = await here.status()
        assert said["url"] is None
        assert "called attic.tail1234.ts.net in the tailnet now" in said["trouble"]
        assert "`appmux tailnet enable`" in said["remedy"]
        assert here.daemon.orders() == 1  # the new name isn't published without a yes
        with pytest.raises(OSError, match=NOBODY):
            async with here.encrypted(name=NAME):
                pass
        said = await here.enable()
        assert said["url"] == f"{here.origin}/" != f"{old}/"
        assert (await here.get("/", f"origin: {old}")).status == 403
        assert (await here.get("/", f"origin: {here.origin}")).status == 200
        with pytest.raises(RpcError, match="not other"):
            await here.operator.request("mux/tailnet/enable", {"name": "other.ts.net"})
        for wrong in ({}, {"name": 7}, {"name": "x" * 300}):
            with pytest.raises(RpcError, match="mux/tailnet/enable"):
                await here.operator.request("mux/tailnet/enable", wrong)


async def test_disabled_nothing_is_left(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        state = here.broker.home.home / ".local" / "state" / "appmux"
        assert choice(here.broker) == {"version": 1, "name": NAME}
        assert (state / "tailnet.pem").exists()
        said = await here.operator.request("mux/tailnet/disable")
        assert (said["enabled"], said["url"]) == (False, None)
        assert choice(here.broker) is None
        assert not (state / "tailnet.pem").exists()
        with pytest.raises(OSError, match=NOBODY):
            async with here.encrypted():
                pass
        announced = json.loads((state / "broker.json").read_text())["listeners"]
        assert not any(each.startswith("wss://") for each in announced)


async def test_an_address_that_comes_later_is_opened_and_one_that_goes_is_closed(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, fields={"addresses": ("192.0.2.1",)}) as here:
        said = await here.enable()
        assert said["url"] is None
        assert "192.0.2.1" in said["trouble"]
        assert "this machine has no such address" in said["trouble"]
        assert "`tailscale serve`" in said["remedy"]
        # It may do without one of them: where there is no IPv6, tailscaled tells one all the same.
        here.daemon.addresses = ("192.0.2.1", ADDRESS)
        said = await here.status()
        assert (said["addresses"], said["trouble"]) == ([ADDRESS], None)
        here.daemon.addresses = (ADDRESS, "127.0.0.3")
        said = await here.status()
        assert (said["addresses"], said["trouble"]) == ([ADDRESS, "127.0.0.3"], None)
        here.daemon.addresses = ("127.0.0.3",)
        assert (await here.status())["addresses"] == ["127.0.0.3"]


async def test_a_port_that_somebody_else_has_is_left_to_them(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        with socket.socket() as other:  # a mapping of `tailscale serve`, say
            other.bind((ADDRESS, here.port))
            other.listen()
            said = await here.enable()
            assert said["url"] is None
            assert "another program listens there" in said["trouble"]
        assert (await here.status())["url"]


async def test_the_next_broker_has_https_at_once_even_without_tailscaled(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        until = await here.until_of()
        here.daemon.stop()
        before, pid = here.broker.shown().count("listening on: ws://"), here.broker.broker_pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: ended(pid), "the broker's end")
        assert await here.until_of() == until  # it waits in the queue, and isn't refused
        await eventually(
            lambda: here.broker.shown().count("listening on: ws://") > before, "the next broker"
        )
        here.daemon.start()
