"""A phone on the Tailnet: paired by the host's name, told by push, a tap away from the approval."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import BrowserContext, Worker, expect

from tests.certificates import issue
from tests.end_to_end.brokered import client
from tests.end_to_end.chromium import in_chromium
from tests.end_to_end.peer import Peer
from tests.end_to_end.scenes import APPROVAL, TURN_COMPLETED
from tests.page.conftest import go, press
from tests.page.scenes import script
from tests.page.seeds import CONFIG, begin
from tests.push.browser import Browser
from tests.push.stand import Heard, standing
from tests.tailnet.serving import ADDRESS, Served, served

SUBSCRIBES: Final = """
const made = {
    endpoint: %(endpoint)s, options: {applicationServerKey: null},
    toJSON: () => ({endpoint: %(endpoint)s, keys: {p256dh: %(p256dh)s, auth: %(auth)s}}),
    unsubscribe: async () => true,
};
let on = false;
PushManager.prototype.subscribe = async () => { on = true; return made; };
PushManager.prototype.getSubscription = async () => on ? made : null;
"""
"""A push service of ours in the place of the browser's own, which isn't reached from here."""

SHOWN: Final = """async () => {
    let shown = [];
    while (!shown.length) {
        await new Promise(done => setTimeout(done, 20));
        shown = await registration.getNotifications();
    }
    return shown.map(each => ({title: each.title, body: each.body}));
}"""

TAPPED: Final = """async () => {
    // A tap lets a worker bring its page to the front; an event that a test makes up doesn't.
    WindowClient.prototype.focus = async function () { return this; };
    const [notification] = await registration.getNotifications();
    const event = new NotificationEvent('notificationclick', {notification, action: ''});
    let done; event.waitUntil = work => { done = work; };
    dispatchEvent(event); await done;
}"""


def trusting(here: Served) -> list[str]:
    """The flags by which Chromium finds the name, and trusts its certificate and no other."""
    there = (ADDRESS, here.port)
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate(there).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
    return [
        f"--host-resolver-rules=MAP {here.daemon.name} {ADDRESS}",
        f"--ignore-certificate-errors-spki-list={digest}",
    ]


async def let_in(operator: Peer, *scopes: str) -> tuple[str, int]:
    """A ticket, and its number."""
    begun = await operator.request("mux/pairing/begin", {"scopes": scopes})
    return str(begun["ticket"]), int(begun["id"])


async def say_yes(operator: Peer, number: int) -> None:
    """Let in whoever comes with a ticket."""
    await operator.wait_method("mux/pairing/asked", id=number)
    await operator.request("mux/pairing/confirm", {"id": number, "accept": True})


def paired(context: BrowserContext, here: Served, ticket: str, operator: Any) -> Any:
    """A page that is paired, and live."""
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{here.origin}/#pair={ticket}")
    page.get_by_role("button", name="Pair", exact=True).click()
    trio.from_thread.run(say_yes, *operator)
    page.locator(".state-live").first.wait_for()
    return page


@pytest.mark.usefixtures("built")
async def test_a_push_is_tapped_and_lands_at_the_approval(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    authority = tmp_path / "authority.pem"
    issued.authority.cert_pem.write_to_path(str(authority))
    async with standing(issued) as stand:
        phone = Browser(stand.url)
        environ = {
            "APPMUX_PUSH_PRIVATE_HOSTS": "localhost",
            "APPMUX_PUSH_CA_FILE": str(authority),
            "APPMUX_HOST": "box",
        }
        options: Any = {"environ": environ, "model": script(), "config": CONFIG}
        async with (
            served(tmp_path / "ts", **options) as here,
            client(here.broker, "desk") as desk,
        ):
            await here.enable()
            ticket, number = await let_in(here.operator, "observe", "approve", "drive")

            async def ask() -> tuple[str, Heard]:
                thread = await begin(desk, here.broker.home.work, "Told of", "note")
                await desk.wait_method(APPROVAL, threadId=thread)
                [heard] = await stand.until(1)
                return thread, heard

            async def decided(thread: str) -> None:
                await desk.wait_method(TURN_COMPLETED, threadId=thread)

            def story(context: BrowserContext) -> None:
                address = phone.registration.address
                given = {name: json.dumps(text) for name, text in address.items()}
                context.add_init_script(SUBSCRIBES % given)
                context.grant_permissions(["notifications"], origin=here.origin)
                page = paired(context, here, ticket, (here.operator, number))
                assert page.evaluate("isSecureContext")
                go(page, "/settings")
                page.get_by_role("group", name="What a notice shows").get_by_text("All").click()
                page.get_by_role("button", name="Turn on").click()
                expect(page.get_by_text("On. You are told")).to_be_visible()
                thread, heard = trio.from_thread.run(ask)
                told = json.loads(phone.read(heard.body))
                shown = told["notification"]
                assert heard.headers["content-type"] == "application/notification+json"
                assert shown["navigate"] == f"{here.origin}/?notice={shown['data']['id']}"
                assert "box" in shown["title"]
                worker = deliver(context, page, here.origin, json.dumps(told))
                assert worker.evaluate(SHOWN) == [
                    {"title": shown["data"]["title"], "body": shown["data"]["body"]}
                ]
                worker.evaluate(TAPPED)
                page.wait_for_url(f"{here.origin}/t/{thread}**")
                press(page, "Approve")
                trio.from_thread.run(decided, thread)

            await in_chromium(story, *trusting(here))


def deliver(context: BrowserContext, page: Any, origin: str, document: str) -> Worker:
    """Have the browser itself give its worker a push, as it does with one of its service's."""
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    found: list[str] = []
    protocol = context.new_cdp_session(page)
    protocol.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda said: found.extend(each["registrationId"] for each in said["registrations"]),
    )
    protocol.send("ServiceWorker.enable")
    while not found:
        page.evaluate("1")  # events are heard while something is asked
    pushed = {"origin": origin, "registrationId": found[0], "data": document}
    protocol.send("ServiceWorker.deliverPushMessage", pushed)
    return context.service_workers[0]


@pytest.mark.usefixtures("built")
async def test_a_page_whose_address_has_ended_says_where_it_is_now(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.enable()
        ticket, number = await let_in(here.operator, "observe")

        async def rename() -> None:
            here.daemon.name = "attic.tail1234.ts.net"
            await here.status()

        def story(context: BrowserContext) -> None:
            page = paired(context, here, ticket, (here.operator, number))
            trio.from_thread.run(rename)
            expect(page.locator(".banner:visible")).to_contain_text(
                f"This address has ended: the host has another name: pair this device at"
                f" https://attic.tail1234.ts.net:{here.port}/"
            )

        await in_chromium(story, *trusting(here))


@pytest.mark.usefixtures("built")
async def test_over_plain_http_the_page_says_where_it_is_over_https(tmp_path: Path) -> None:
    # Chromium calls all of 127.0.0.0/8 secure, but no name that leads there.
    plain = "APPMUX_WEB_ORIGINS"
    async with served(tmp_path, environ={plain: "http://plain.test:8080"}) as here:
        await here.enable()
        port = here.broker.url.rpartition(":")[2]

        def story(context: BrowserContext) -> None:
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto("http://plain.test:8080/")
            expect(page.get_by_role("link", name=here.origin)).to_be_visible()

        await in_chromium(story, f"--host-resolver-rules=MAP plain.test:8080 127.0.0.1:{port}")
