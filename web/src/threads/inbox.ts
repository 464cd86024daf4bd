// The inbox: what needs a person, and every thread with what is known of it. A fold over
// `mux/inbox` and `mux/inbox/changed`.

import type { InboxThread as ToldThread, Need as ToldNeed, Result as Page } from "@mux/mux.inbox";
import type { Params as Change, ThreadChange } from "@mux/mux.inbox.changed";
import type { RateLimitSnapshot, ThreadTokenUsage } from "../wire.ts";

export interface Need {
  key: string;
  kind: "approval" | "question" | "queue";
  threadId: string | null;
  rootThreadId: string | null;
  title: string;
  directory: string;
  /** The moment since which it waits, by this device's clock, in milliseconds. */
  since: number;
  id?: number;
  method?: string;
  policy?: string;
  waitsFor?: string;
  reason?: string | null;
  command?: string | null;
  cwd?: string | null;
  files?: FileCount[];
  risks?: string[];
  text?: string | null;
  held?: string;
  queued?: number;
}

export interface FileCount {
  path: string;
  /** `add`, `delete` or `update`. */
  kind: string;
  movedTo: string | null;
  added: number;
  removed: number;
}

export interface Row {
  id: string;
  title: string;
  preview: string;
  directory: string;
  status: string;
  archived: boolean;
  updatedAt: number | null;
  recencyAt: number | null;
  unread: boolean;
  readState: { firstUnread: unknown; revision: string } | null;
  lastLine: { text: string; of: string } | null;
  turn: RunningTurn | null;
  lastTurn: { id: string; status: string } | null;
  queued: number;
  held: string | null;
  needs: number;
  usage: ThreadTokenUsage | null;
}

export interface RunningTurn {
  id: string;
  /** The moment at which it began, by this device's clock. */
  since: number;
  by: { client: number; name: string; principal: string } | null;
}

export interface Inbox {
  host: string;
  appServer: { state: string; version: string | null };
  needs: Map<string, Need>;
  threads: Map<string, Row>;
  limits: Record<string, RateLimitSnapshot>;
  nextCursor: string | null;
  /** When this was true, in milliseconds; for one that was kept, long ago. */
  at: number;
}

export function emptyInbox(): Inbox {
  return {
    host: "",
    appServer: { state: "", version: null },
    needs: new Map(),
    threads: new Map(),
    limits: {},
    nextCursor: null,
    at: 0,
  };
}

/** An answer of `mux/inbox`: the first page begins anew, a later one adds to it. */
export function takePage(before: Inbox, page: Page, now: number, first: boolean): Inbox {
  const threads = new Map(first ? [] : before.threads);
  for (const said of page.threads) threads.set(said.id, row(threads.get(said.id), said, now));
  return {
    host: page.host,
    appServer: page.appServer,
    needs: new Map(page.needs.map((said) => [said.key, need(said, now)] as const)),
    threads,
    limits: page.limits ?? {},
    nextCursor: page.nextCursor,
    at: now,
  };
}

/** A `mux/inbox/changed`. */
export function takeChange(before: Inbox, change: Change, now: number): Inbox {
  const needs = new Map(before.needs);
  for (const said of change.needs ?? []) needs.set(said.key, need(said, now));
  for (const key of change.needsGone ?? []) needs.delete(key);
  const threads = new Map(before.threads);
  for (const said of change.threads ?? []) {
    threads.set(said.id, row(threads.get(said.id), said, now));
  }
  for (const id of change.threadsGone ?? []) threads.delete(id);
  return {
    ...before,
    appServer: change.appServer ?? before.appServer,
    limits: { ...before.limits, ...change.limits },
    needs,
    threads,
    at: now,
  };
}

function need(said: ToldNeed, now: number): Need {
  const { ageSeconds, ...rest } = said;
  return { ...rest, since: now - 1000 * ageSeconds };
}

const NEW_ROW: Row = {
  id: "",
  title: "",
  preview: "",
  directory: "",
  status: "notLoaded",
  archived: false,
  updatedAt: null,
  recencyAt: null,
  unread: false,
  readState: null,
  lastLine: null,
  turn: null,
  lastTurn: null,
  queued: 0,
  held: null,
  needs: 0,
  usage: null,
};

function row(before: Row | undefined, said: ThreadChange | ToldThread, now: number): Row {
  const { turn, ...rest } = said;
  const made: Row = { ...NEW_ROW, ...before, ...rest };
  if (turn) made.turn = { id: turn.id, by: turn.by, since: now - 1000 * turn.runningSeconds };
  else if (turn === null) made.turn = null;
  return made;
}

// -- what is shown ---------------------------------------------------------------------------------

export interface Groups {
  needs: Need[];
  running: Row[];
  recent: Row[];
}

/** The three groups. A thread that waits for a person stands above, not among the running ones. */
export function groups(inbox: Inbox): Groups {
  const needs = [...inbox.needs.values()].sort((a, b) => a.since - b.since);
  const asking = new Set(needs.map((each) => each.rootThreadId ?? each.threadId));
  const rows = [...inbox.threads.values()];
  const running = rows
    .filter((each) => each.turn !== null && !asking.has(each.id))
    .sort((a, b) => a.turn!.since - b.turn!.since || (a.id < b.id ? -1 : 1));
  const recent = rows
    .filter((each) => each.turn === null && !asking.has(each.id))
    .sort((a, b) => newest(b) - newest(a) || (a.id < b.id ? 1 : -1));
  return { needs, running, recent };
}

function newest(each: Row): number {
  return each.recencyAt ?? each.updatedAt ?? 0;
}

/** A thread's name for a person. */
export function titleOf(row: { title?: string; preview?: string } | undefined): string {
  return row?.title || firstLine(row?.preview ?? "") || "New thread";
}

function firstLine(text: string): string {
  return text.trim().split("\n", 1)[0] ?? "";
}
