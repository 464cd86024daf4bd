// Who did what, from the host's audit log: newest first, in words, a page at a time.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { AuditRecord, Result } from "@mux/mux.audit.list";
import { decided } from "../approvals/requests.ts";
import { liveRpc } from "../connection/runtime.ts";
import { personOf } from "../people.ts";
import { threadPath } from "../route.ts";
import { inbox, phase, presence, sayError } from "../state.ts";
import { titleOf } from "../threads/inbox.ts";
import { ago } from "./format.ts";
import { Link, now, Strange } from "./parts.tsx";

/** What a person looks for first: who was let in or shut out, what was decided, what was refused. */
const FIRST = [
  "admin/asked",
  "answer",
  "approval/answered",
  "approval/voted",
  "audit",
  "client/cut",
  "config",
  "device",
  "directory",
  "file",
  "push",
  "queue",
  "request",
  "restart",
  "tailnet",
];

const FEW = 20;

/** What was asked for, by the method of the request. */
const ASKED: Record<string, string> = {
  "item/commandExecution/requestApproval": "a command",
  "item/fileChange/requestApproval": "changes of files",
  "item/permissions/requestApproval": "permissions",
  "item/tool/requestUserInput": "a question",
  "mcpServer/elicitation/request": "a form",
};

const nameOf = (path: unknown): string => String(path ?? "").replace(/^.*\//, "");

/** What a record says after the name of who acted. */
const WORDS: Record<string, (fields: Record<string, any>) => string> = {
  "device/paired": (of) => `let ${of.device} in`,
  "device/added": (of) => `added ${of.device}`,
  "device/refused": (of) => `turned ${of.device ?? "a device"} away`,
  "device/revoked": (of) => `shut ${of.device} out`,
  "device/left": (of) => `signed ${of.device} out`,
  "device/renamed": (of) => `renamed ${of.was} to ${of.device}`,
  "device/limited": (of) => `changed what ${of.device} may do`,
  "approval/answered": (of) => `${decided(of.decision)}: ${ASKED[of.method] ?? "a request"}`,
  "approval/voted": (of) => `voted “${decided(of.decision)}”: ${ASKED[of.method] ?? "a request"}`,
  "answer/refused": () => "gave an answer that didn’t count",
  "request/refused": (of) => `may not do this: ${of.method ?? `${of.times} more`}`,
  "admin/asked": (of) => `asked for ${of.method}`,
  "client/cut": () => "was cut off",
  "client/attached": () => "came",
  "client/left": () => "left",
  "turn/asked": (of) => (of.method === "turn/interrupt" ? "interrupted a turn" : `wrote (${of.method})`),
  "queue/released": () => "let the queue go on",
  "file/received": (of) => `sent ${nameOf(of.path)}`,
  "file/opened": (of) => `opened ${nameOf(of.path)}`,
  "push/registered": (of) => `${of.device} gets pushes by ${of.service}`,
  "push/unregistered": (of) => `ended pushes to ${of.device}`,
  "restart/asked": (of) => `restarted ${of.broker ? "appmux" : "Codex"}`,
};

export function AuditLog(): JSX.Element {
  const [records, setRecords] = useState<AuditRecord[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [every, setEvery] = useState(false);
  const [read, setRead] = useState(false);
  const ask = async (cursor: string | null): Promise<Result> => {
    const kinds = every ? [] : FIRST;
    return liveRpc().request<Result>("mux/audit/list", { limit: FEW, cursor, kinds });
  };
  useEffect(() => {
    if (phase.value !== "live") return;
    let over = false;
    ask(null).then(
      (page) => {
        if (over) return;
        setRecords(page.records);
        setNext(page.nextCursor);
        setRead(true);
      },
      () => undefined, // it is read again with the next connection
    );
    return () => void (over = true);
  }, [phase.value, presence.value, every]);
  const more = (): void => {
    Promise.resolve()
      .then(() => ask(next))
      .then((page) => {
        setRecords((before) => [...before, ...page.records]);
        setNext(page.nextCursor);
      })
      .catch(sayError);
  };
  return (
    <section class="card">
      <h2 class="card-title">Who did what</h2>
      <label class="check wide inset">
        <input type="checkbox" checked={every} onChange={(event) => setEvery(event.currentTarget.checked)} />
        <span>Also who came, and what ran</span>
      </label>
      <ul class="people">
        {records.map((each) => (
          <Row key={each.n} record={each} />
        ))}
        {!records.length && <li class="quiet pad">{read ? "Nothing yet." : "Loading …"}</li>}
      </ul>
      {next !== null && (
        <button type="button" class="fold" onClick={more}>
          Show what came before
        </button>
      )}
    </section>
  );
}

function Row({ record }: { record: AuditRecord }): JSX.Element {
  const { by, kind, fields } = record;
  const words = WORDS[kind]?.(fields) ?? kind;
  const who = by ? personOf({ client: by.client, name: by.name || "this host", principal: by.principal }) : "";
  const thread = typeof fields.thread === "string" ? fields.thread : null;
  return (
    <li class="person">
      <span class="row-body">
        <span class="row-head">
          <span class="row-words">
            {who && <strong><Strange text={who} /></strong>} <Strange text={words} />
          </span>
          <time class="row-age" dateTime={new Date(record.at * 1000).toISOString()} title={new Date(record.at * 1000).toLocaleString()}>
            {ago(record.at * 1000, now.value)}
          </time>
        </span>
        {thread && (
          <Link to={threadPath(thread)} class="inline-link">
            <Strange text={titleOf(inbox.value.threads.get(thread))} />
          </Link>
        )}
      </span>
    </li>
  );
}
