"""THE TABLE: what the broker does with each method that it does more than pass through.

It has three parts: requests of clients, notifications of the app-server, requests of the
app-server. A method that stands in none of them passes. Such a request goes upstream and its answer
comes back. Such a notification goes to the followers of its thread, or to everybody if it names
none. Such a server request is put to the thread's followers like an approval. Only ids are treated
in every method: a field that is called like the id of a request, watch, process, search or stream
is taken for one (``id_fields``), until a row says otherwise.

To teach the broker a method, add a line here. The meaning of each column stands in ``rules``.
"""

from __future__ import annotations

from mux.core.protocol import known_notifications
from mux.core.protocol.envelope import structure
from mux.core.protocol.rules import (
    Audience,
    NotificationRule,
    OfferTo,
    OwnId,
    RequestRule,
    Route,
    ServerRequestRule,
)
from mux.core.protocol.scope import Scope

_READS = RequestRule(reads=True)
_READS_SLOWLY = RequestRule(reads=True, waits=True)
_WAITS = RequestRule(waits=True)
_BEGINS = RequestRule(begins=True)

_PROCESS = "processId"
_HANDLE = "processHandle"
_SEARCH = _SESSION = "sessionId"
_STREAM = "subscriptionId"

REQUESTS: dict[str, RequestRule] = {
    "initialize": RequestRule(Route.INITIALIZE),
    "mux/status": RequestRule(Route.SERVER),
    **dict.fromkeys(
        (
            "mux/pairing/begin",
            "mux/pairing/confirm",
            "mux/devices/list",
            "mux/devices/add",
            "mux/devices/revoke",
            "mux/devices/rename",
            "mux/devices/scope",
            "mux/notices/list",
            "mux/notices/read",
            "mux/notices/settings/read",
            "mux/notices/settings/write",
            "mux/notices/snooze",
            "mux/notices/test",
            "mux/push/register",
            "mux/push/received",
            "mux/push/unregister",
            "mux/push/list",
            "mux/session/prove",
            "mux/session/token",
            "mux/session/end",
            "mux/tailnet/read",
            "mux/tailnet/enable",
            "mux/tailnet/disable",
            "mux/audit/list",
        ),
        RequestRule(Route.SERVER),
    ),
    "mux/focus": RequestRule(Route.FOCUS),
    "mux/inbox": RequestRule(Route.INBOX),
    "mux/usage": RequestRule(Route.INBOX),
    "mux/thread/digest": RequestRule(Route.DIGEST),
    "mux/files/list": RequestRule(Route.FILES),
    "mux/files/open": RequestRule(Route.FILES),
    "mux/restart": RequestRule(Route.RESTART),
    "mux/replay": RequestRule(Route.REPLAY, reads=True),
    "mux/presence/read": RequestRule(Route.PRESENCE),
    "mux/approvals/list": RequestRule(Route.APPROVALS),
    "mux/approvals/answer": RequestRule(Route.ANSWER),
    "mux/queue/list": RequestRule(Route.QUEUE),
    "mux/queue/remove": RequestRule(Route.QUEUE),
    "mux/queue/start": RequestRule(Route.QUEUE),
    # Requests that begin work.
    "turn/start": _BEGINS,
    "thread/compact/start": _BEGINS,
    "thread/shellCommand": _BEGINS,
    "thread/queue/start": _BEGINS,
    "thread/goal/set": _BEGINS,
    "thread/realtime/start": RequestRule(
        begins=True, server_ids=frozenset({"realtimeSessionId", "voiceSessionId"})
    ),
    # Threads: who follows what.
    "thread/start": RequestRule(Route.FOLLOW, loads=True, content="drive"),
    "thread/fork": RequestRule(Route.FOLLOW, loads=True, content="admin"),
    "thread/resume": RequestRule(Route.FOLLOW, loads=True, content="admin"),
    "review/start": RequestRule(Route.FOLLOW, begins=True),
    "thread/unsubscribe": RequestRule(Route.UNFOLLOW),
    # Ids that belong to one client.
    "fs/watch": RequestRule(own_id=OwnId("watchId", ended_by="fs/unwatch")),
    "fs/unwatch": RequestRule(own_id=OwnId("watchId", ends=True)),
    "command/exec": RequestRule(
        waits=True,
        begins=True,
        own_id=OwnId(_PROCESS, ended_by="command/exec/terminate", made_up=True),
    ),
    "command/exec/write": RequestRule(own_id=OwnId(_PROCESS)),
    "command/exec/resize": RequestRule(own_id=OwnId(_PROCESS)),
    "command/exec/terminate": RequestRule(own_id=OwnId(_PROCESS)),
    "process/spawn": RequestRule(begins=True, own_id=OwnId(_HANDLE, ended_by="process/kill")),
    "process/writeStdin": RequestRule(own_id=OwnId(_HANDLE)),
    "process/resizePty": RequestRule(own_id=OwnId(_HANDLE)),
    "process/kill": RequestRule(own_id=OwnId(_HANDLE)),
    "fuzzyFileSearch": RequestRule(reads=True, waits=True, own_id=OwnId("cancellationToken")),
    "fuzzyFileSearch/sessionStart": RequestRule(
        own_id=OwnId(_SEARCH, ended_by="fuzzyFileSearch/sessionStop")
    ),
    "fuzzyFileSearch/sessionUpdate": RequestRule(own_id=OwnId(_SEARCH)),
    "fuzzyFileSearch/sessionStop": RequestRule(own_id=OwnId(_SEARCH, ends=True)),
    "mcpServer/event/stream/start": RequestRule(
        waits=True, own_id=OwnId(_STREAM, ended_by="mcpServer/event/stream/stop")
    ),
    "mcpServer/event/stream/stop": RequestRule(own_id=OwnId(_STREAM, ends=True)),
    # Requests that name another request of the same connection.
    **dict.fromkeys(
        (
            "userVerification/cancel",
            "thread/sample/cancel",
            "thread/search/cancel",
            "thread/search/stream/cancel",
        ),
        RequestRule(names_request="requestId"),
    ),
    # Ids that the app-server has given, though they are called like a client's own.
    "thread/backgroundTerminals/terminate": RequestRule(server_ids=frozenset({_PROCESS})),
    "accountSession/switch": RequestRule(server_ids=frozenset({_SESSION})),
    "thread/realtime/list": RequestRule(reads=True, server_ids=frozenset({_SESSION})),
    "environment/add": RequestRule(waits=True, server_ids=frozenset({"websocketRequestId"})),
    # Answers that wait for a person, a model, a download or a foreign server.
    "userVerification/enroll": _WAITS,
    "userVerification/verify": _WAITS,
    "thread/sample": RequestRule(waits=True, cancelled_by="thread/sample/cancel"),
    "thread/search/stream": RequestRule(
        reads=True, waits=True, cancelled_by="thread/search/stream/cancel"
    ),
    "thread/prediction/request": _WAITS,
    "thread/guardianReview": _WAITS,
    "mcpServer/tool/call": RequestRule(waits=True, content="admin"),
    "mcpServer/oauth/login": _WAITS,
    "mcpServer/resource/read": _READS_SLOWLY,
    "mcpServerStatus/list": _READS_SLOWLY,
    "account/login/start": _WAITS,
    "account/gatewayOAuth/login": _WAITS,
    "account/bedrock/setup": _WAITS,
    "account/gcp/setup": _WAITS,
    "marketplace/add": _WAITS,
    "marketplace/upgrade": _WAITS,
    "plugin/install": _WAITS,
    "plugin/reconcile": _WAITS,
    "plugin/share/save": _WAITS,
    "plugin/share/checkout": _WAITS,
    "externalAgentConfig/import": RequestRule(waits=True, content="admin"),
    "feedback/upload": _WAITS,
    "rollout/compress": _WAITS,
    "windowsSandbox/setupStart": _WAITS,
    # Requests that bring content: a conversation, an event, a configuration.
    "thread/inject_items": RequestRule(content="drive"),
    "project/import": RequestRule(content="drive"),
    "thread/approveGuardianDeniedAction": RequestRule(content="approve"),
    **dict.fromkeys(
        ("config/batchWrite", "config/value/write", "externalAgentConfig/import/recordHistory"),
        RequestRule(content="admin"),
    ),
    # Requests that only read.
    "fs/readFile": RequestRule(reads=True, large=True),
    **dict.fromkeys(
        (
            "account/gatewayOAuth/read",
            "account/rateLimits/read",
            "account/read",
            "account/usage/read",
            "account/workspaceMessages/read",
            "app/installed",
            "app/list",
            "app/read",
            "collaborationMode/list",
            "config/read",
            "configRequirements/read",
            "experimentalFeature/list",
            "fs/getMetadata",
            "fs/readDirectory",
            "hooks/list",
            "memory/status",
            "model/list",
            "modelProvider/capabilities/read",
            "permissionProfile/list",
            "plugin/installed",
            "plugin/list",
            "plugin/read",
            "plugin/search",
            "project/list",
            "project/read",
            "server/diagnostics",
            "skills/list",
            "thread/attachment/list",
            "thread/backgroundTerminals/list",
            "thread/goal/get",
            "thread/items/list",
            "thread/items/read",
            "thread/list",
            "thread/loaded/list",
            "thread/queue/list",
            "thread/read",
            "thread/search",
            "thread/searchOccurrences",
            "thread/timeline/list",
            "thread/turns/list",
            "threadSection/list",
        ),
        _READS,
    ),
}

_EVERYBODY = NotificationRule(Audience.EVERYBODY)
PUBLISHED = NotificationRule()
UNSEEN = NotificationRule(Audience.NAMED)

NOTIFICATIONS: dict[str, NotificationRule] = {
    **dict.fromkeys(known_notifications.PUBLISHED, PUBLISHED),
    "thread/started": _EVERYBODY,
    "thread/status/changed": _EVERYBODY,
    "thread/name/updated": _EVERYBODY,
    "thread/archived": _EVERYBODY,
    "thread/unarchived": _EVERYBODY,
    "thread/deleted": _EVERYBODY,
    "thread/closed": _EVERYBODY,
    "thread/attachment/updated": _EVERYBODY,
    "thread/goal/cleared": _EVERYBODY,
    "thread/goal/updated": _EVERYBODY,
    "thread/project/updated": _EVERYBODY,
    "thread/readState/changed": _EVERYBODY,  # before 0.171: to followers
    "thread/reverted": _EVERYBODY,
    "thread/section/changed": _EVERYBODY,
    "fs/changed": NotificationRule(Audience.OWNER, own_id="watchId"),
    "command/exec/outputDelta": NotificationRule(Audience.OWNER, own_id=_PROCESS),
    "process/outputDelta": NotificationRule(Audience.OWNER, own_id=_HANDLE),
    "process/exited": NotificationRule(Audience.OWNER, own_id=_HANDLE),
    "fuzzyFileSearch/sessionUpdated": NotificationRule(Audience.OWNER, own_id=_SEARCH),
    "fuzzyFileSearch/sessionCompleted": NotificationRule(Audience.OWNER, own_id=_SEARCH),
    "mcpServer/event/stream/notification": NotificationRule(Audience.OWNER, own_id=_STREAM),
    "thread/search/partial": NotificationRule(Audience.NAMED, names_request="requestId"),
    "item/commandExecution/terminalInteraction": NotificationRule(server_ids=frozenset({_PROCESS})),
    "thread/realtime/started": NotificationRule(server_ids=frozenset({"realtimeSessionId"})),
    "serverRequest/resolved": NotificationRule(server_ids=frozenset({"requestId"})),
    "deprecationNotice": NotificationRule(Audience.ASKERS),
    "account/rateLimits/updated": NotificationRule(Audience.WORKING),
    "configWarning": NotificationRule(Audience.EVERYBODY, greets=True),
    "remoteControl/status/changed": NotificationRule(Audience.EVERYBODY, greets=True),
}

_OF_A_PERSON = ServerRequestRule(shown=True)

SERVER_REQUESTS: dict[str, ServerRequestRule] = {
    "item/commandExecution/requestApproval": ServerRequestRule(
        needs="requiredHumanApproval", only_if=("kind", "humanCommand"), shown=True
    ),
    "mcpServer/elicitation/request": ServerRequestRule(
        needs="openaiForm", only_if=("mode", "openai/form"), shown=True
    ),
    "item/fileChange/requestApproval": _OF_A_PERSON,
    "item/permissions/requestApproval": _OF_A_PERSON,
    "item/tool/requestUserInput": _OF_A_PERSON,
    "applyPatchApproval": _OF_A_PERSON,
    "execCommandApproval": _OF_A_PERSON,
    "item/tool/call": ServerRequestRule(OfferTo.TOOL_OWNER, scope="drive"),
    "account/chatgptAuthTokens/refresh": ServerRequestRule(OfferTo.ONE_AT_A_TIME, scope="admin"),
    "attestation/generate": ServerRequestRule(
        OfferTo.ONE_AT_A_TIME, needs="requestAttestation", scope="admin"
    ),
    "currentTime/read": ServerRequestRule(OfferTo.ONE_AT_A_TIME, scope="drive"),
}

_ANSWERING: frozenset[Scope] = frozenset({"approve", "drive", "admin"})
"""The scopes with which a client may be put a server request (see ``ServerRequestRule.scope``)."""

PLAIN = RequestRule()
OFFERED = ServerRequestRule()
ASKED_OF_THE_HOST = ServerRequestRule(scope="admin")


def request_rule(method: str) -> RequestRule:
    """Return the rule for a client's request; ``PLAIN`` if the table doesn't name it."""
    return REQUESTS.get(method, PLAIN)


def most_elements(scopes: frozenset[Scope], method: str) -> int:
    """Return how many elements a message of a client with these scopes may have.

    An answer, which has no method, brings content, too: of a tool, or of a form.
    """
    if method:
        return request_rule(method).most_elements(scopes)
    return structure.MAX_ELEMENTS if scopes & _ANSWERING else structure.OPENED_ELEMENTS


def notification_rule(method: str) -> NotificationRule:
    """Return the rule for a notification; ``UNSEEN`` if the table doesn't name it."""
    return NOTIFICATIONS.get(method, UNSEEN)


def server_request_rule(method: str, *, of_thread: bool = True) -> ServerRequestRule:
    """Return the rule for a server request.

    A method that the table doesn't name, but that names a thread, is put like an approval to
    clients that may approve, and shown to nobody else. Without a thread it concerns the host and
    needs ``admin``.
    """
    return SERVER_REQUESTS.get(method, OFFERED if of_thread else ASKED_OF_THE_HOST)
