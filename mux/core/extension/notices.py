"""``mux/focus``, ``mux/notices/*``, ``mux/push/*``: when a person is told, of what, and where."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from mux.core.extension.parts import Described, method
from mux.core.policy.notice import Kind
from mux.core.protocol.envelope.text_limits import Name

Level = Literal["opaque", "title", "full"]

LONGEST_URL = 2048
"""Characters of the URL that a tap opens."""

MOST_RECEIVED = 64
"""Pushes named at once: a device that was off line gets fewer."""


class FocusParams(msgspec.Struct):
    """The thread in your foreground, or null. ``active``: true if somebody looks."""

    threadId: Name | None
    active: bool = True


class FocusHeld(msgspec.Struct):
    """The seconds for which the focus holds after anything that you send."""

    holdsSeconds: float


class ListParams(msgspec.Struct):
    """Params of ``mux/notices/list``: the newest ``limit``, 1,000 at most.

    ``why``: true to get each step and delivery.
    """

    limit: int = 50
    why: bool = False


class Step(msgspec.Struct):
    """A decision about a notice.

    ``device``: the name of the device; null: all devices. ``at``: Unix seconds. ``what``: raised,
    sent, suppressed, withdrawn, over (it went nowhere), answered.
    """

    at: float
    what: str
    device: str | None
    why: str


class Delivery(msgspec.Struct):
    """The delivery to one endpoint.

    ``said``: the service's last answer. ``arrived``: when the device confirmed it, in Unix seconds;
    null until then.
    """

    device: str
    service: str
    withdraw: bool
    state: str
    attempts: int
    said: str | None
    arrived: float | None


class Told(msgspec.Struct):
    """A notice.

    ``line``: the text below its title where all is told; or empty. ``sentTo``: names of devices.
    ``over``: Unix seconds; null while it stands.
    """

    thing: str
    kind: Kind
    threadId: str | None
    title: str
    line: str
    raised: float
    sentTo: list[str]
    over: float | None
    overWhy: str | None
    steps: list[Step]
    deliveries: list[Delivery]


class Notices(msgspec.Struct):
    """Notices, the newest first."""

    notices: list[Told]


class ReadParams(msgspec.Struct):
    """Params of ``mux/notices/read``. ``id``: the id of a push that your device got."""

    id: str


class NoticeRead(msgspec.Struct):
    """The notice behind a push. ``over``: Unix seconds; null while it stands.

    For an approval that waits, ``requestId`` is the id for ``mux/approvals/answer``, and ``params``
    and ``item`` are as in ``mux/approvals/list``; else they are null.
    """

    id: str
    kind: Kind
    threadId: str | None
    turnId: str | None
    title: str
    line: str
    raised: float
    over: float | None
    overWhy: str | None
    requestId: int | None
    method: str | None
    params: Any
    item: Any


class RuleSet(msgspec.Struct):
    """A rule: for a thread or a kind, for both, or for all. The most specific rule counts.

    ``mode`` quiet: off between ``start`` and ``end`` (HH:MM, in ``timeZone``, an IANA name, or else
    in the host's). ``until``: Unix seconds, after which the rule is gone; null: it stays.
    """

    mode: Literal["on", "off", "quiet"]
    threadId: Name | None = None
    kind: Kind | None = None
    start: Name | None = None
    end: Name | None = None
    timeZone: Name | None = None
    until: float | None = None


class SettingsParams(msgspec.Struct):
    """Params of ``mux/notices/settings/read``.

    ``device``: the name of a device; null: yours. Another than yours needs ``admin``.
    """

    device: str | None = None


class Settings(msgspec.Struct):
    """The rules of a device. ``default``: the rules that the host's settings add below them."""

    device: str
    rules: list[RuleSet]
    default: list[RuleSet]
    kinds: list[Kind]


class WriteParams(msgspec.Struct):
    """Params of ``mux/notices/settings/write``. ``rules`` replace those that were there."""

    rules: list[RuleSet]
    device: str | None = None


class SnoozeParams(msgspec.Struct):
    """Params of ``mux/notices/snooze``: no notices for so many seconds; 0 ends it.

    Of one thread or kind, or of all.
    """

    seconds: float
    threadId: Name | None = None
    kind: Kind | None = None
    device: str | None = None


class TryParams(msgspec.Struct):
    """Params of ``mux/notices/test``.

    ``device``: the name of a device; null: yours. Another than yours needs ``admin``.
    """

    device: str | None = None


class Said(msgspec.Struct):
    """The answer of a push service."""

    endpoint: str
    device: str
    service: str
    level: Level
    said: str


class Tested(msgspec.Struct):
    """The answers, by endpoint."""

    answers: list[Said]


class RegisterParams(msgspec.Struct):
    """Params of ``mux/push/register``.

    ``address``: the service's fields (see ``docs/push.md``). ``level``: how much a push tells.
    ``navigate``: for a page, the URL that a tap opens, on the page's own origin; by default that
    origin's ``/``. The push's id is added to it as ``notice``.
    """

    service: str
    address: Any
    level: Level = "opaque"
    navigate: Annotated[str, msgspec.Meta(max_length=LONGEST_URL)] | None = None


class ReceivedParams(msgspec.Struct):
    """Params of ``mux/push/received``. ``ids``: ids of pushes that your device got."""

    ids: Annotated[list[Name], msgspec.Meta(max_length=MOST_RECEIVED)]


class Received(msgspec.Struct):
    """The device's confirmation was noted.

    ``known``: how many of the ids are pushes to your device.
    """

    known: int


class Endpoint(msgspec.Struct):
    """A place where a device is reached; its address is never shown. Times are Unix seconds.

    ``navigate``: the page that a tap opens, if a page registered the endpoint.
    """

    id: str
    device: str
    service: str
    level: Level
    created: float
    said: str | None
    saidAt: float | None
    navigate: str | None


class UnregisterParams(msgspec.Struct):
    """Params of ``mux/push/unregister``. ``id``: the endpoint's id."""

    id: str


class Unregistered(msgspec.Struct):
    """True if the endpoint was there."""

    removed: bool


class PushListParams(msgspec.Struct):
    """Params of ``mux/push/list``.

    ``all``: true for the endpoints of every device, which needs ``admin``.
    """

    all: bool = False


class Endpoints(msgspec.Struct):
    """Endpoints.

    ``services``: the services that a device may register for, each with what an app must know
    first.
    """

    endpoints: list[Endpoint]
    services: dict[str, dict[str, str]]


_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"
_THING = "asked/1880000000000001"
_ID = "9f86d081884c7d659a2feaa0c55ad015"
_QUIET = RuleSet("quiet", start="22:00", end="07:00", timeZone="Europe/Vienna")

METHODS: dict[str, Described] = {
    "mux/focus": method(
        "Which thread is in the foreground; say it at each change, and once a minute.",
        FocusParams(_THREAD),
        FocusHeld(120.0),
    ),
    "mux/notices/list": method(
        "What was raised lately; whom it went to, or why not.",
        ListParams(20, why=True),
        Notices(
            [
                Told(
                    thing=_THING,
                    kind="approval",
                    threadId=_THREAD,
                    title="Fix the build",
                    line="change Makefile",
                    raised=1790000000.0,
                    sentTo=["phone"],
                    over=1790000042.0,
                    overWhy="answered by a notice (phone)",
                    steps=[
                        Step(1790000000.0, "raised", None, "item/fileChange/requestApproval"),
                        Step(1790000000.0, "suppressed", "tablet", "quiet hours"),
                        Step(1790000000.0, "sent", "phone", "used last"),
                    ],
                    deliveries=[
                        Delivery("phone", "apns", False, "sent", 1, "delivered: 200", 1790000001.5)
                    ],
                )
            ]
        ),
    ),
    "mux/notices/read": method(
        "What stands behind a push that your device got.",
        ReadParams(_ID),
        NoticeRead(
            id=_ID,
            kind="approval",
            threadId=_THREAD,
            turnId="0199f3a2-7777-7a10-8f6e-3d2b1c0a9e87",
            title="Fix the build",
            line="",
            raised=1790000000.0,
            over=None,
            overWhy=None,
            requestId=1880000000000001,
            method="item/fileChange/requestApproval",
            params={"threadId": _THREAD, "itemId": "call_1"},
            item={"id": "call_1", "type": "fileChange", "changes": []},
        ),
    ),
    "mux/notices/settings/read": method(
        "What your device wants to be told of.",
        SettingsParams(),
        Settings("phone", [_QUIET], [RuleSet("off", kind="goal-reached")], ["approval"]),
    ),
    "mux/notices/settings/write": method(
        "Say what your device wants to be told of.",
        WriteParams([_QUIET, RuleSet("on", kind="approval")]),
        Settings("phone", [_QUIET, RuleSet("on", kind="approval")], [], ["approval"]),
    ),
    "mux/notices/snooze": method(
        "Nothing for a while.",
        SnoozeParams(1800.0, threadId=_THREAD),
        Settings("phone", [RuleSet("off", threadId=_THREAD, until=1790001800.0)], [], ["approval"]),
    ),
    "mux/notices/test": method(
        "Send a test at once, and hear what the services say.",
        TryParams(),
        Tested([Said("51c1d5ab0e2f9c3d", "phone", "ntfy", "opaque", "delivered: 200")]),
    ),
    "mux/push/register": method(
        "Reach your device there from now on; the same address again changes its level.",
        RegisterParams("ntfy", {"server": "https://ntfy.sh", "topic": "qWx81-mQ0"}, "title"),
        Endpoint("51c1d5ab0e2f9c3d", "phone", "ntfy", "title", 1790000000.0, None, None, None),
    ),
    "mux/push/received": method(
        "Your device got these pushes; its program says so by itself.",
        ReceivedParams([_ID]),
        Received(1),
    ),
    "mux/push/unregister": method(
        "Not there any more.", UnregisterParams("51c1d5ab0e2f9c3d"), Unregistered(removed=True)
    ),
    "mux/push/list": method(
        "Where your device is reached, and which services there are.",
        PushListParams(),
        Endpoints(
            [
                Endpoint(
                    "51c1d5ab0e2f9c3d", "phone", "ntfy", "title", 1790000000.0, None, None, None
                )
            ],
            {"webpush": {"applicationServerKey": "BNcRdreALRFX…"}, "ntfy": {}},
        ),
    ),
}
