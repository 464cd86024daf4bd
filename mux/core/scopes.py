"""Who may do what: four scopes, and the one that each method needs.

    observe   list, read and follow threads
    approve   answer server requests
    drive     start, steer and interrupt turns; start, fork, rename, archive threads
    admin     config, account, plugins, files, processes, shell, devices; and whatever isn't listed

Each stands alone: ``admin`` doesn't include ``approve``. A method that isn't listed needs
``admin``, so a new codex version's methods are closed to others until somebody has looked at them.

Some requests are judged by what they do, too: one that loosens the sandbox or the approval policy,
or brings its own config, needs ``admin`` whatever its method.

Heard from: ``broker``, before a request goes anywhere.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Scope = Literal["observe", "approve", "drive", "admin"]

ALL: frozenset[Scope] = frozenset({"observe", "approve", "drive", "admin"})

_OBSERVE = """
    account/rateLimits/read account/read account/usage/read account/workspaceMessages/read
    account/bedrock/checkGovCloudRequirements account/gatewayOAuth/read
    app/installed app/list app/read collaborationMode/list configRequirements/read
    experimentalFeature/list hooks/list initialize memory/status model/list modelProvider/list
    modelProvider/capabilities/read permissionProfile/list
    mux/approvals/list mux/focus mux/notices/list mux/notices/read mux/notices/settings/read
    mux/notices/settings/write mux/notices/snooze mux/notices/test mux/presence/read mux/push/list
    mux/push/register mux/push/unregister mux/queue/list mux/replay mux/status
    plugin/installed plugin/list plugin/read plugin/search plugin/skill/read
    project/list project/read server/diagnostics skills/list thread/attachment/list
    thread/attachmentOwner/list thread/backgroundTerminals/list thread/goal/get thread/items/list
    thread/items/read thread/list thread/loaded/list thread/memory/read thread/queue/list
    thread/read thread/readState/update thread/realtime/listVoices thread/resume thread/search
    thread/search/cancel thread/search/stream thread/search/stream/cancel thread/realtime/list
    thread/searchOccurrences thread/timeline/list thread/turns/list thread/unsubscribe
    threadSection/list windowsSandbox/readiness mcpServerStatus/list
    accountSession/list account/securitySetup/read
"""

_DRIVE = """
    mux/queue/remove mux/queue/start
    project/create project/import project/move project/update project/delete review/start
    thread/archive thread/attachment/add thread/attachment/remove thread/compact/start thread/fork
    thread/goal/clear thread/goal/set thread/guardianReview thread/inject_items thread/delete
    thread/memoryMode/set thread/metadata/update thread/name/set thread/prediction/request
    thread/prepareApprovedPlan thread/queue/add thread/queue/delete
    thread/queue/reorder thread/queue/start thread/queue/update thread/realtime/appendAudio
    thread/realtime/appendSpeech thread/realtime/appendText thread/realtime/start
    thread/realtime/stop thread/revert thread/sample thread/sample/cancel thread/section/move
    thread/settings/update thread/start thread/unarchive threadSection/create
    threadSection/delete threadSection/update turn/interrupt turn/settings/update turn/start
    turn/steer thread/backgroundTerminals/clean thread/backgroundTerminals/terminate
    thread/increment_elicitation thread/decrement_elicitation
"""

_APPROVE = "thread/approveGuardianDeniedAction mux/approvals/answer"

_ADMIN = """
    account/bedrock/discover account/bedrock/setup account/gatewayOAuth/cancel
    account/gatewayOAuth/login account/gcp/setup account/login/cancel account/login/start
    account/logout account/rateLimitResetCredit/consume account/sendAddCreditsNudgeEmail
    accountSession/switch command/exec command/exec/resize command/exec/terminate
    command/exec/write config/batchWrite config/mcpServer/reload config/read config/value/write
    environment/add environment/info environment/status experimentalFeature/enablement/set
    externalAgentConfig/detect externalAgentConfig/import
    externalAgentConfig/import/readHistories externalAgentConfig/import/recordHistory
    feedback/save feedback/upload fs/copy fs/createDirectory fs/getMetadata fs/readDirectory
    fs/readFile fs/remove fs/unwatch fs/watch fs/writeFile fuzzyFileSearch
    fuzzyFileSearch/sessionStart fuzzyFileSearch/sessionStop fuzzyFileSearch/sessionUpdate
    marketplace/add marketplace/remove marketplace/upgrade mcpServer/event/stream/start
    mcpServer/event/stream/stop mcpServer/oauth/login mcpServer/resource/read
    mcpServer/tool/call memory/reset mock/experimentalMethod modelProvider/config/write
    modelProvider/default/set
    mux/restart plugin/install plugin/reconcile plugin/share/checkout plugin/share/delete
    plugin/share/list plugin/share/save plugin/share/updateTargets plugin/uninstall process/kill
    process/resizePty process/spawn process/writeStdin remoteControl/client/list
    remoteControl/client/revoke remoteControl/disable remoteControl/enable
    remoteControl/pairing/start remoteControl/pairing/status remoteControl/status/read
    rollout/compress skills/config/write skills/extraRoots/set thread/shellCommand
    userVerification/cancel userVerification/delete userVerification/enroll
    userVerification/status userVerification/verify windowsSandbox/setupStart
"""

SCOPES: dict[str, Scope] = {
    **dict.fromkeys(_OBSERVE.split(), "observe"),
    **dict.fromkeys(_DRIVE.split(), "drive"),
    **dict.fromkeys(_APPROVE.split(), "approve"),
    **dict.fromkeys(_ADMIN.split(), "admin"),
}


class _Sandbox(msgspec.Struct):
    type: str


class _Environment(msgspec.Struct):
    runtimeWorkspaceRoots: msgspec.Raw = msgspec.Raw(b"null")


class _Overrides(msgspec.Struct):
    """The params by which a request changes what a turn may do."""

    approvalPolicy: msgspec.Raw = msgspec.Raw(b"null")
    approvalsReviewer: str | None = None
    sandbox: str | None = None
    sandboxPolicy: _Sandbox | None = None
    permissions: msgspec.Raw = msgspec.Raw(b"null")
    config: msgspec.Raw = msgspec.Raw(b"null")
    path: str | None = None
    history: msgspec.Raw = msgspec.Raw(b"null")
    runtimeWorkspaceRoots: msgspec.Raw = msgspec.Raw(b"null")
    selectedCapabilityRoots: msgspec.Raw = msgspec.Raw(b"null")
    environments: list[_Environment] | None = None


class _Steering(msgspec.Struct):
    """The params of ``thread/resume`` that change how the thread goes on."""

    cwd: msgspec.Raw = msgspec.Raw(b"null")
    model: msgspec.Raw = msgspec.Raw(b"null")
    modelProvider: msgspec.Raw = msgspec.Raw(b"null")
    serviceTier: msgspec.Raw = msgspec.Raw(b"null")
    personality: msgspec.Raw = msgspec.Raw(b"null")
    baseInstructions: msgspec.Raw = msgspec.Raw(b"null")
    developerInstructions: msgspec.Raw = msgspec.Raw(b"null")


_TIGHT_POLICIES = frozenset({b'"untrusted"', b'"on-request"', b"null"})
"""Values of ``approvalPolicy`` that leave the asking to people."""

_MAY_OVERRIDE = frozenset(
    {
        "thread/start",
        "thread/resume",
        "thread/fork",
        "thread/settings/update",
        "turn/start",
        "turn/settings/update",
    }
)


def needed(method: str, params: bytes) -> tuple[Scope, str]:
    """The scope that a request needs, and a word on why where that isn't plain from its method."""
    if method in _MAY_OVERRIDE:
        loosens = _loosens(params)
        if loosens:
            return "admin", f" with `{loosens}`"
    if method == "thread/resume" and (steers := _steers(params)):
        return "drive", f" with `{steers}`"
    return SCOPES.get(method, "admin"), ""


def _loosens(params: bytes) -> str:
    """The param that loosens what the thread may do; empty if none does."""
    try:
        asked = _overrides_decoder.decode(params)
    except msgspec.DecodeError:
        # Of another shape than the schema's: the app-server will say so, or knows more than we.
        return "params that can't be judged"
    sandbox = asked.sandbox or (asked.sandboxPolicy.type if asked.sandboxPolicy else None)
    found = {
        "sandbox": sandbox not in (None, "read-only", "readOnly"),
        "approvalPolicy": bytes(asked.approvalPolicy) not in _TIGHT_POLICIES,
        "approvalsReviewer": asked.approvalsReviewer not in (None, "user"),
        "permissions": bytes(asked.permissions) != b"null",
        "path": asked.path is not None,  # of any file on the host
        "history": bytes(asked.history) != b"null",
        "config": bytes(asked.config) not in (b"null", b"{}"),
        "runtimeWorkspaceRoots": _some(asked.runtimeWorkspaceRoots),
        "environments": any(_some(e.runtimeWorkspaceRoots) for e in asked.environments or ()),
        "selectedCapabilityRoots": _some(asked.selectedCapabilityRoots),  # plugins of any folder
    }
    return next((name for name, loosened in found.items() if loosened), "")


def _some(listed: msgspec.Raw) -> bool:
    return bytes(listed) not in (b"null", b"[]")


def _steers(params: bytes) -> str:
    """The param by which a ``thread/resume`` does more than look on; empty if none does."""
    asked = _steering_decoder.decode(params)  # `_loosens` has seen that it is an object
    names = _Steering.__struct_fields__
    return next((name for name in names if bytes(getattr(asked, name)) != b"null"), "")


_overrides_decoder = msgspec.json.Decoder(_Overrides)
_steering_decoder = msgspec.json.Decoder(_Steering)
