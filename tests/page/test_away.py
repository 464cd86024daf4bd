"""The page away from its host: what is kept, the worker, an upgrade, and the way out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Worker, expect

from mux.web.files import BUILT
from tests.page.conftest import Opener, go
from tests.page.runtime import Runtime, runtime


def _worked(page: Page) -> None:
    """Wait until the worker has the page."""
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.locator("html").evaluate(
        """() => new Promise(done => {
            const look = () => navigator.serviceWorker.controller ? done() : setTimeout(look, 20);
            look();
        })"""
    )


KEPT = """id => new Promise(done => {
    const open = indexedDB.open('appmux');
    open.onsuccess = () => {
        const all = open.result.transaction('page').objectStore('page');
        const got = all.get(`texts/thread/${id}`);
        got.onsuccess = () => { open.result.close(); done(got.result !== undefined); };
    };
})"""
"""Whether what the page shows of a thread is on the device."""


def _worker(page: Page) -> Worker:
    _worked(page)
    return page.context.service_workers[0]


def test_the_kept_page_opens_without_a_host_and_says_how_old_it_is(opened: Opener) -> None:
    with runtime() as host:
        thread = host.begin("Seen before", "hello")
        page = opened(at=host)
        _worked(page)
        page.locator(".row", has_text="Seen before").click()
        expect(page.get_by_text("Hello! What shall we look at?").last).to_be_visible()
        page.wait_for_function(KEPT, arg=thread)
    # The host is gone now, and the page is opened anew.
    page.goto(f"{host.origin}/t/{thread}")
    expect(page.locator(".agent")).to_contain_text("Hello! What shall we look at?")
    expect(page.locator(".banner:visible")).to_contain_text("Offline since")
    expect(page.get_by_text(re.compile("^As it was"))).to_be_visible()
    expect(page.get_by_role("button", name="Interrupt the turn")).to_have_count(0)
    go(page, "/")
    expect(page.locator(".row", has_text="Seen before")).to_be_visible()
    expect(page.locator(".groups.kept")).to_be_visible()


def test_what_is_shared_goes_to_a_thread_as_a_draft(host: Runtime, opened: Opener) -> None:
    host.begin("Takes it", "hello")
    page = opened()
    _worked(page)
    page.evaluate(
        """async () => {
            const form = new FormData();
            form.append('title', 'A page'); form.append('text', 'look at this');
            form.append('url', 'https://example.invalid/a');
            const picture = new Uint8Array([137,80,78,71]);
            form.append('files', new File([picture], 'a.png', {type: 'image/png'}));
            form.append('files', new File(['words'], 'a.txt', {type: 'text/plain'}));
            await fetch('/share', {method: 'POST', body: form});
        }"""
    )
    go(page, "/share")
    expect(page.locator(".shared")).to_contain_text("look at this")
    page.locator("main, [role=main]").get_by_role("button", name="Takes it").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value(re.compile("look at this"))
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    sent = page.get_by_role("list", name="Files to send").get_by_role("listitem")
    expect(sent).to_contain_text("on the host")


def _push(worker: Worker, told: dict[str, Any]) -> None:
    worker.evaluate(
        """async told => {
            const event = new PushEvent('push', {data: JSON.stringify(told)});
            let done = Promise.resolve();
            event.waitUntil = work => { done = work; };
            dispatchEvent(event);
            await done;
        }""",
        told,
    )


SHOWN = """async () => (await registration.getNotifications()).map(each => ({
    title: each.title, body: each.body, tag: each.tag,
    actions: each.actions.map(a => a.action),
}))"""


def test_pushes_are_shown_replaced_and_withdrawn(host: Runtime, opened: Opener) -> None:
    page = opened()
    page.context.grant_permissions(["notifications"], origin=host.origin)
    worker = _worker(page)
    told = {"v": 1, "id": "n1", "kind": "approval", "collapse": "c1", "count": 1, "expiresAt": 1}
    _push(worker, told)
    assert [each["title"] for each in worker.evaluate(SHOWN)] == ["An approval waits"]
    _push(worker, told | {"count": 2, "ticket": "amt_x", "actions": ["approve", "decline"]})
    (shown,) = worker.evaluate(SHOWN)
    assert shown["body"] == "2 things wait"
    assert shown["actions"] == ["approve", "decline"]
    _push(worker, told | {"collapse": "c2", "title": "Fix it", "body": "make test"})
    assert {each["title"] for each in worker.evaluate(SHOWN)} == {"An approval waits", "Fix it"}
    _push(worker, told | {"withdraw": True, "count": 0})
    assert [each["tag"] for each in worker.evaluate(SHOWN)] == ["c2"]
    # What can't be read shows something all the same: a push that doesn't costs the permission.
    worker.evaluate(
        """async () => {
            const event = new PushEvent('push', {data: 'no json'});
            let done; event.waitUntil = work => { done = work; };
            dispatchEvent(event); await done;
        }"""
    )
    assert "Something waits" in {each["title"] for each in worker.evaluate(SHOWN)}
    kept = "() => new Promise(done => { const open = indexedDB.open('appmux');"
    kept += " open.onsuccess = () => { const got = open.result.transaction('page')"
    kept += ".objectStore('page').get('received'); got.onsuccess = () => done(got.result); }; })"
    assert page.evaluate(kept) == ["n1", "n1", "n1"]
    page.reload()
    expect(page.get_by_text("live").first).to_be_visible()
    page.wait_for_function(f"async () => (await ({kept})()) === undefined")  # told to the broker


def test_a_notices_action_answers_with_its_ticket_alone(host: Runtime, opened: Opener) -> None:
    page = opened()
    page.context.grant_permissions(["notifications"], origin=host.origin)
    worker = _worker(page)
    _push(worker, {
        "v": 1, "id": "n9", "kind": "approval", "collapse": "c9", "count": 1, "expiresAt": 1,
        "ticket": "amt_nonsense", "actions": ["approve", "decline"],
    })  # fmt: skip
    worker.evaluate(
        """async () => {
            const [notification] = await registration.getNotifications({tag: 'c9'});
            const how = {notification, action: 'approve'};
            const event = new NotificationEvent('notificationclick', how);
            let done; event.waitUntil = work => { done = work; };
            dispatchEvent(event); await done;
        }"""
    )
    (shown,) = [each for each in worker.evaluate(SHOWN) if each["tag"] == "c9"]
    assert shown["title"] == "Not decided yet"
    assert "ticket" in shown["body"].lower()


def test_a_notice_that_is_tapped_opens_its_thread(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Told of", "note")
    host.run(
        lambda: host.desk.wait_method("item/commandExecution/requestApproval", threadId=thread)
    )
    page = opened()
    listed = host.request("mux/notices/list", {"why": True})["notices"]
    device = page.evaluate(
        """async () => new Promise(done => {
            const open = indexedDB.open('appmux');
            open.onsuccess = () => {
                const get = open.result.transaction('page').objectStore('page').get('device');
                get.onsuccess = () => done(get.result.name);
            };
        })"""
    )
    assert device
    assert any(each.get("threadId") == thread for each in listed)
    page.goto(f"{host.origin}/?notice=unknown")
    expect(page.locator(".toast.error").first).to_be_visible()
    assert page.url == f"{host.origin}/"


def test_a_broker_of_another_protocol_makes_the_page_read_only_drafts_kept(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Upgraded", "note")
    page = opened(path=f"/t/{thread}")
    page.get_by_label("Message", exact=True).fill("a draft")
    draft = "id => localStorage.getItem(`draft/${id}`) === 'a draft'"
    page.wait_for_function(draft, arg=thread)

    def upgraded(message: Any) -> Any:
        if not isinstance(message, str) or '"appmux":{' not in message:
            return message
        said = json.loads(message)
        if "appmux" in said.get("result", {}):
            said["result"]["appmux"]["version"] = 2
        return json.dumps(said)

    def relay(socket: Any) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: socket.send(upgraded(message)))

    page.route_web_socket(re.compile(".*"), relay)
    page.reload()
    expect(page.locator(".banner.warn:visible")).to_contain_text("only shows until it is reloaded")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    expect(page.get_by_label("Message", exact=True)).to_have_value("a draft")
    expect(page.get_by_role("button", name="Steer")).to_have_count(0)


def _upgrade(page: Path) -> None:
    """Have a folder hold the next build of the page: another worker, and a mark in the shell."""
    worker = page / "worker.js"
    text, changed = re.subn(
        "appmux-shell-[0-9a-f]{12}", "appmux-shell-111111111111", worker.read_text()
    )
    assert changed
    worker.write_text(text)
    shell = page / "index.html"
    shell.write_text(shell.read_text().replace("<head>", '<head><meta name="build" content="2">'))


def test_a_page_that_was_open_during_an_upgrade_says_so_and_keeps_its_draft(
    opened: Opener, tmp_path: Path
) -> None:
    place = tmp_path / "page"
    shutil.copytree(BUILT, place)
    with runtime(environ={"APPMUX_WEB_FILES": str(place)}) as host:
        thread = host.begin("Open meanwhile", "hello")
        page = opened(at=host, path=f"/t/{thread}")
        _worked(page)
        page.get_by_label("Message", exact=True).fill("half a thought")
        _upgrade(place)
        # An upgrade restarts the broker: the connection is made anew.
        page.evaluate("dispatchEvent(new Event('offline'))")
        page.evaluate("dispatchEvent(new Event('online'))")
        banner = page.locator(".banner:visible", has_text="A newer version of this page is ready.")
        expect(banner).to_be_visible()
        expect(page.get_by_label("Message", exact=True)).to_have_value("half a thought")
        assert page.locator("meta[name=build]").count() == 0
        banner.get_by_role("button", name="Reload").click()
        page.locator("meta[name=build]").wait_for(state="attached")
        expect(page.get_by_label("Message", exact=True)).to_have_value("half a thought")
        expect(page.locator(".thread .state-live")).to_be_visible()
        expect(banner).to_have_count(0)


def test_signing_out_leaves_nothing_behind(host: Runtime, opened: Opener) -> None:
    page = opened(path="/settings")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="This browser isn’t paired")).to_be_visible()
    left = page.evaluate(
        """async () => new Promise(done => {
            const open = indexedDB.open('appmux');
            open.onsuccess = () => {
                const get = open.result.transaction('page').objectStore('page').getAllKeys();
                get.onsuccess = () => done([...get.result, ...Object.keys(localStorage)]);
            };
        })"""
    )
    assert left == []


def test_a_device_that_is_revoked_is_shut_out_and_cleared(host: Runtime, opened: Opener) -> None:
    page = opened()
    known = host.request("mux/devices/list")["devices"]
    newest = max(known, key=lambda each: each["madeAt"])
    host.request("mux/devices/revoke", {"name": newest["name"]})
    expect(page.get_by_role("heading", name="This browser isn’t paired")).to_be_visible()


def test_reset_removes_worker_and_storage(host: Runtime, opened: Opener) -> None:
    page = opened()
    _worked(page)
    page.goto(f"{host.origin}/reset")
    page.get_by_role("button", name="Remove everything").click()
    expect(page.get_by_role("status")).to_contain_text("Done.")
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then(all => all.length)") == 0
    assert page.evaluate("caches.keys()") == []
    page.goto(host.origin)
    expect(page.get_by_role("heading", name="This browser isn’t paired")).to_be_visible()
