"""Four scopes, and the one that each method needs.

    observe   list, read and follow threads
    approve   answer server requests
    drive     start, steer and interrupt turns; start, fork, rename, archive threads
    admin     config, account, plugins, files, processes, shell, devices; and whatever isn't listed

Each scope stands alone: ``admin`` doesn't include ``approve``. A method that isn't listed needs
``admin``, so a new codex version's methods stay closed to others until somebody has judged them.

Some requests are judged by their params, too. A request that loosens the sandbox or the approval
policy, or brings its own config, needs ``admin`` whatever its method (see ``thread_overrides``).
``directory_clearance`` decides in which directories a thread may work, and whose settings count
there.

Used by ``broker``, before a request goes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mux.core.policy import confined_thread
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.scope import Scope
from mux.core.protocol.threads import thread_overrides
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, Held

ALL: frozenset[Scope] = frozenset({"observe", "approve", "drive", "admin"})

_OBSERVE = """
    account/rateLimits/read account/read account/usage/read account/workspaceMessages/read
    account/bedrock/checkGovCloudRequirements account/gatewayOAuth/read
    app/installed app/list app/read collaborationMode/list config/read configRequirements/read
    experimentalFeature/list hooks/list initialize memory/status model/list modelProvider/list
    modelProvider/capabilities/read permissionProfile/list
    mux/approvals/list mux/files/list mux/files/open mux/focus mux/inbox mux/notices/list
    mux/notices/read
    mux/notices/settings/read mux/notices/settings/write mux/notices/snooze mux/notices/test
    mux/presence/read mux/push/list mux/push/received mux/push/register mux/push/unregister
    mux/queue/list mux/replay mux/session/end mux/session/prove mux/session/token mux/status
    mux/thread/digest mux/usage
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
    command/exec/write config/batchWrite config/mcpServer/reload config/value/write
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
    mux/audit/list mux/restart mux/tailnet/disable mux/tailnet/enable mux/tailnet/read
    plugin/install plugin/reconcile plugin/share/checkout plugin/share/delete
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


NEED_NOTHING: frozenset[str] = frozenset(
    {"initialize", "mux/session/end", "mux/session/prove", "mux/session/token"}
)
"""Requests about the asker's own connection or device alone: they need no scope of their own."""


def _thread(fields: thread_overrides.Fields) -> str | None:
    try:
        return jsonrpc.read_text(bytes(fields.get("threadId", b"")))
    except msgspec.DecodeError:
        return None


def _unknown(_: str | None) -> Held:
    return NOTHING_KNOWN


def needed(
    method: str,
    fields: thread_overrides.Fields | None,
    held: Callable[[str | None], Held] = _unknown,
) -> tuple[Scope, str]:
    """Return the scope that a request needs, and why, if its method alone doesn't say it.

    ``fields`` are its params; None if they are no object. ``held`` returns the settings of the
    thread that the request names, if it names one.
    """
    if method in thread_overrides.METHODS:
        if fields is None:
            # Params of another shape than the schema's: the app-server will refuse them, or it is
            # newer than this broker.
            return "admin", f" with `{thread_overrides.UNREADABLE}`"
        judged = confined_thread.to_be_judged(method, fields)
        if loosened := thread_overrides.loosens(judged, held(_thread(fields))):
            return "admin", f" with `{loosened}`"
        if method == "thread/resume" and (steered := thread_overrides.steers(fields)):
            return "drive", f" with `{steered}`"
    return SCOPES.get(method, "admin"), ""
