"""The webhook: what the receiver's code from the documentation makes of it."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from mux.config import model
from mux.push.outcome import Delivered, Failed, Retry
from mux.push.services.registry import Services, open_services
from tests.push.stand import Said, Stand, standing
from tests.push.told import NOW, endpoint, push

DOCS = Path(__file__).parents[3] / "docs" / "push.md"
HERE = endpoint("webhook", device="host")


@attrs.define
class Hook:
    stand: Stand
    services: Services
    secret: Path


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    async with standing() as stand:
        secret = tmp_path / "secret"
        secret.write_text("whsec_" + base64.b64encode(b"s" * 32).decode() + "\n")
        secret.chmod(0o600)
        settings = model.Push(
            webhook=model.Webhook(url=f"{stand.url}/hook?who=ada", secret_file=secret)
        )
        services = open_services(settings, tmp_path)
        yield Hook(stand, services, secret)
        await services.web.aclose()


@pytest.fixture
def verify() -> Callable[..., Any]:
    """The function `verify` as `docs/push.md` gives it to receivers."""
    (snippet,) = re.findall(r"```python\n(.*?def verify.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    found: Callable[..., Any] = names["verify"]
    return found


async def test_the_receivers_code_takes_it(hook: Hook, verify: Callable[..., Any]) -> None:
    assert await hook.services.deliver(HERE, push(), NOW) == Delivered("200")
    (heard,) = hook.stand.heard
    assert heard.path == "/hook?who=ada"
    assert verify(b"s" * 32, heard.headers, heard.body, NOW + 299) == push().document()


async def test_the_receivers_code_refuses_what_it_should(
    hook: Hook, verify: Callable[..., Any]
) -> None:
    await hook.services.deliver(HERE, push(), NOW)
    (heard,) = hook.stand.heard
    changed = heard.headers | {"webhook-id": "another"}
    for secret, headers, body, now in (
        (b"t" * 32, heard.headers, heard.body, NOW),
        (b"s" * 32, heard.headers, heard.body + b" ", NOW),
        (b"s" * 32, changed, heard.body, NOW),
        (b"s" * 32, heard.headers | {"webhook-timestamp": str(int(NOW) + 1)}, heard.body, NOW),
        (b"s" * 32, heard.headers, heard.body, NOW + 301),
        (b"s" * 32, heard.headers, heard.body, NOW - 301),
    ):
        with pytest.raises(ValueError, match=r"signature|old"):
            verify(secret, headers, body, now)


async def test_a_double_has_the_same_id_and_a_new_time(
    hook: Hook, verify: Callable[..., Any]
) -> None:
    for now, told in ((NOW, push()), (NOW + 600, push()), (NOW + 600, push().withdrawal(0, NOW))):
        await hook.services.deliver(HERE, told, now)
    first, again, withdrawal = hook.stand.heard
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.headers["webhook-id"] != withdrawal.headers["webhook-id"]
    assert verify(b"s" * 32, again.headers, again.body, NOW + 600)
    assert verify(b"s" * 32, withdrawal.headers, withdrawal.body, NOW + 600)["withdraw"] is True


async def test_what_the_receiver_answers(hook: Hook) -> None:
    hook.stand.answers = [Said(204), Said(500, b"oops"), Said(404), Said(429)]
    outcomes = [await hook.services.deliver(HERE, push(), NOW) for _ in range(4)]
    assert outcomes == [
        Delivered("204"),
        Retry(None, "500 oops"),
        Failed("404"),
        Retry(None, "429"),
    ]


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("short", "24 bytes at least"),
        ("whsec_???", "isn't base64"),
        ("", "is empty"),
    ],
)
async def test_a_secret_that_is_none(hook: Hook, secret: str, told: str) -> None:
    hook.secret.write_text(secret)
    outcome = await hook.services.deliver(HERE, push(), NOW)
    assert isinstance(outcome, Retry)
    assert outcome.ours
    assert told in outcome.reason
    assert not hook.stand.heard
