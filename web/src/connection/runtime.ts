// Puts the concerns together over one connection: who hears what, and in which order one catches up.

import { effect } from "@preact/signals";
import { followInbox, hearOfRequests, readRequests } from "../approvals/answering.ts";
import { hearOfMessages, restoreOutbox, sendOver, setLastTurn } from "../composer/sending.ts";
import { open as openThread } from "../route.ts";
import {
  device,
  endedWhy,
  identity,
  inbox,
  inboxKept,
  outdated,
  ownClient,
  phase,
  phaseSince,
  phaseWhy,
  presence,
  queues,
  type Queue,
} from "../state.ts";
import { lookForNewer } from "../push/worker-registration.ts";
import { drop, forgetAll, kept } from "../storage/store.ts";
import { Threads } from "../threads/follow.ts";
import { emptyInbox, takeChange, takePage } from "../threads/inbox.ts";
import { keepInbox, keptInbox } from "../threads/kept-inbox.ts";
import type { Result as Page } from "@mux/mux.inbox";
import type { Message } from "../wire.ts";
import type { Identity } from "./connect.ts";
import { Connection, type Hello, type Phase, PROTOCOL } from "./connection.ts";
import type { Device } from "./device.ts";
import type { Rpc } from "./rpc.ts";

export const threads = new Threads();

let connection: Connection | null = null;

/** The connection's requests, or null while there is none. */
export function rpc(): Rpc | null {
  return connection?.rpc ?? null;
}

/** The requests of a live connection. Throws if there is none, with what to tell. */
export function liveRpc(): Rpc {
  const found = rpc();
  if (!found || phase.value !== "live") throw new Error("Not connected: try again in a moment.");
  return found;
}

export function currentEpoch(): string | null {
  return connection?.hello?.epoch ?? null;
}

export function wake(): void {
  connection?.wake();
}

/** Show the inbox as it was kept, until there is a connection. */
export function showKept(): void {
  const before = keptInbox(Date.now());
  if (before && inboxKept.value) inbox.value = before;
}

/** Begin to connect, and go on with what was left to be sent. */
export async function start(known: Device): Promise<void> {
  device.value = known;
  setLastTurn((id) => {
    const state = threads.get(id).state;
    const open = [...state.turns.keys()].at(-1);
    if (open !== undefined) return open;
    const row = inbox.value.threads.get(id);
    return row ? (row.turn?.id ?? row.lastTurn?.id) : undefined;
  });
  threads.onApplied = (message) => {
    hearOfMessages(message);
    hearOfRequests(message);
  };
  const ended = (why: string): void => void (endedWhy.value = why);
  connection = new Connection(known, { phase: phaseChanged, message: hear, ended, catchUp });
  connection.start();
  watchFocus();
  addEventListener("pagehide", () => {
    threads.keepAll();
    keepInboxNow();
  });
  await restoreOutbox();
  if (phase.value === "live") sendOver(rpc());
}

/** Keep the inbox for the next start, when what came has been drawn. */
function keepInboxSoon(): void {
  setTimeout(keepInboxNow, KEPT_AFTER_MS);
}

function keepInboxNow(): void {
  // Nothing is kept of what was only kept itself, nor after one has signed out.
  if (device.value && !inboxKept.value) keepInbox(inbox.value);
}

/** By then the first rows are on the screen of a slow phone. */
const KEPT_AFTER_MS = 1_000;

function phaseChanged(now: Phase, why: string): void {
  if (now !== "live" && phase.value === "live") {
    threads.disconnected(connection!.cursor());
    sendOver(null);
    keepInboxNow();
  }
  if (now !== phase.value && !(phase.value === "offline" && now === "connecting")) {
    phaseSince.value = Date.now();
  }
  phase.value = now;
  phaseWhy.value = why;
  if (now === "live") {
    endedWhy.value = "";
    sendOver(rpc());
  }
  if (now === "signedOut") void signedOut();
}

const alsoHeard = new Set<(message: Message) => void>();

/** Hear every message as well. Returns how to stop. */
export function hearAlso(listener: (message: Message) => void): () => void {
  alsoHeard.add(listener);
  return () => void alsoHeard.delete(listener);
}

function hear(message: Message): void {
  const { method, params } = message;
  for (const each of alsoHeard) each(message);
  switch (method) {
    case "mux/inbox/changed":
      inbox.value = takeChange(inbox.value, params, Date.now());
      if (rpc()) followInbox(rpc()!);
      break;
    case "mux/presence":
      presence.value = params.clients;
      break;
    case "mux/queue":
      setQueue(params);
      threads.hear(message);
      break;
    default:
      threads.hear(message);
  }
}

function setQueue(said: Queue): void {
  const all = new Map(queues.value);
  if (said.turns.length || said.held) all.set(said.threadId, said);
  else all.delete(said.threadId);
  queues.value = all;
}

/** Tell the broker which pushes the worker got: so it knows whether they arrive here. */
async function tellOfPushes(over: Rpc): Promise<void> {
  const ids = await kept<string[]>("received");
  if (!ids?.length) return;
  await over.request("mux/push/received", { ids }).then(() => drop("received"), () => undefined);
}

async function catchUp(over: Rpc, hello: Hello, who: Identity, asked: Promise<Page>): Promise<void> {
  identity.value = who;
  ownClient.value = hello.clientId;
  outdated.value = hello.version !== PROTOCOL;
  const first = asked.then((page) => {
    inbox.value = takePage(inbox.value, page, Date.now(), true);
    inboxKept.value = false;
    keepInboxSoon();
  });
  const waiting = first.then(() => readRequests(over)).then(() => followInbox(over));
  const followed = threads.connected(over, hello.epoch, openThread.value);
  const queue = over.request("mux/queue/list", {}).then((said) => {
    queues.value = new Map(said.queues.map((each: Queue) => [each.threadId, each]));
  });
  over
    .request("mux/presence/read", {})
    .then((said) => (presence.value = said.clients))
    .catch(() => undefined);
  await Promise.all([first, waiting, followed, queue]);
  focus(over);
  void clearNotices();
  void tellOfPushes(over);
  // What the page begins with it has just fetched, or its worker is about to.
  if (connectedBefore) void lookForNewer(who.version);
  connectedBefore = true;
}

let connectedBefore = false;

/** What was told is seen now. */
async function clearNotices(): Promise<void> {
  if (document.visibilityState !== "visible") return;
  const worker = await navigator.serviceWorker?.getRegistration().catch(() => undefined);
  for (const each of (await worker?.getNotifications()) ?? []) each.close();
}

// -- what is on the screen -------------------------------------------------------------------------

const FOCUS_MS = 60_000;

function focus(over: Rpc): void {
  const active = document.visibilityState === "visible";
  over.request("mux/focus", { threadId: openThread.value, active }).catch(() => undefined);
}

function watchFocus(): void {
  effect(() => {
    const open = openThread.value;
    if (phase.value !== "live" || !rpc()) return;
    focus(rpc()!);
    markRead(open);
  });
  document.addEventListener("visibilitychange", () => {
    if (rpc()) focus(rpc()!);
    void clearNotices();
  });
  setInterval(() => {
    if (rpc() && document.visibilityState === "visible") focus(rpc()!);
  }, FOCUS_MS);
  effect(() => {
    const row = openThread.value ? inbox.value.threads.get(openThread.value) : undefined;
    if (row?.unread && row.turn === null) markRead(row.id);
  });
}

function markRead(id: string | null): void {
  const row = id ? inbox.value.threads.get(id) : undefined;
  if (!row?.unread || !row.readState || document.visibilityState !== "visible") return;
  const { revision } = row.readState;
  const said = `${row.id} ${revision}`;
  const connection = rpc();
  if (!connection || said === saidRead) return;
  saidRead = said;
  const params = { threadId: row.id, expectedRevision: revision, operation: { type: "read" } };
  connection.request("thread/readState/update", params).catch(() => {
    saidRead = ""; // it may not have arrived
  });
}

/** The thread and its revision that were said to be read last: said once. */
let saidRead = "";

// -- the end ---------------------------------------------------------------------------------------

async function signedOut(): Promise<void> {
  await forgetOnThisDevice();
  device.value = null;
  identity.value = null;
  inbox.value = emptyInbox();
}

/** Remove everything that is of this device's, in the browser. */
export async function forgetOnThisDevice(): Promise<void> {
  await forgetAll();
  await drop("device");
  try {
    await navigator.clearAppBadge?.();
    const worker = await navigator.serviceWorker?.getRegistration();
    await (await worker?.pushManager?.getSubscription())?.unsubscribe();
    for (const each of (await worker?.getNotifications()) ?? []) each.close();
  } catch {
    // What a browser doesn't have needn't be cleared.
  }
}

/** Sign out: the broker forgets this device, then the browser does. */
export async function signOut(): Promise<void> {
  await liveRpc().request("mux/session/end", {});
  connection?.end();
}
