// Sends the messages of this device. Of several tabs one sends at a time, and each message goes
// under an id of its own, which the broker runs once.

import { Gone, type Rpc, RpcError } from "../connection/rpc.ts";
import { cantAct, inbox, outgoing, say } from "../state.ts";
import { drop, keep, keptUnder } from "../storage/store.ts";
import type { Message, UserInput } from "../wire.ts";
import { arrived, decide, doubt, type Mode, type Outgoing, restored, update } from "./outbox.ts";

const LOCK = "appmux-outbox";

/** A tab that holds the lock for longer is asleep: another one takes it. */
const LOCK_PATIENCE_MS = 10_000;

/** An answer has come and the message itself hasn't: it is taken off all the same. */
const SHOWN_MS = 4000;

/** More than this in one message isn't taken by the page: the bound for pictures. */
export const PICTURE_BYTES = 8 * 1024 * 1024;

let current: Rpc | null = null;
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("appmux-outbox") : null;

/** Read what an earlier life of this page left to be sent. */
export async function restoreOutbox(): Promise<void> {
  if (channel) channel.onmessage = () => void reread();
  await reread();
}

async function reread(): Promise<void> {
  const list = await keptUnder<Outgoing>("outbox/");
  outgoing.value = restored(list.sort((a, b) => a.at - b.at));
}

function change(id: string, what: Partial<Outgoing>): void {
  outgoing.value = update(outgoing.value, id, what);
  const now = outgoing.value.find((each) => each.id === id);
  if (now) void keep(`outbox/${id}`, now).then(() => channel?.postMessage(id));
}

export function take(id: string): void {
  outgoing.value = outgoing.value.filter((each) => each.id !== id);
  void drop(`outbox/${id}`).then(() => channel?.postMessage(id));
}

export interface Draft {
  text: string;
  /** As data, which goes with the message. */
  pictures: string[];
  /** Pictures that lie on the host already, by their paths. */
  uploaded?: string[];
}

/** What a draft is to the app-server. */
export function inputOf(draft: Draft): UserInput[] {
  const input: UserInput[] = [];
  if (draft.text) input.push({ type: "text", text: draft.text, text_elements: [] });
  for (const url of draft.pictures) input.push({ type: "image", url });
  for (const path of draft.uploaded ?? []) input.push({ type: "localImage", path });
  return input;
}

/** Send a message, now or as soon as there is a connection. */
export async function send(
  threadId: string,
  draft: Draft,
  mode: Mode,
  options: Record<string, unknown> = {},
): Promise<void> {
  const message: Outgoing = {
    id: crypto.randomUUID(),
    threadId,
    input: inputOf(draft),
    text: draft.text,
    pictures: draft.pictures.length + (draft.uploaded?.length ?? 0),
    mode,
    at: Date.now(),
    lastTurn: lastTurnOf(threadId) ?? null,
    options,
    state: "waiting",
    why: "",
    confirmed: false,
    queueId: null,
    place: null,
  };
  outgoing.value = [...outgoing.value, message];
  await keep(`outbox/${message.id}`, message);
  channel?.postMessage(message.id);
  await pump();
}

/** A person wants a message to go that failed, or that asked. */
export function again(id: string): void {
  change(id, { state: "waiting", confirmed: true, why: "" });
  void pump();
}

/** Whose last turn is known only through what is open; the runtime says how. */
export let lastTurnOf: (threadId: string) => string | null | undefined = () => undefined;

export function setLastTurn(look: typeof lastTurnOf): void {
  lastTurnOf = look;
}

export function sendOver(rpc: Rpc | null): void {
  current = rpc;
  if (rpc) {
    // Whether what was under way, or in the queue, is there still, the same id tells.
    outgoing.value = outgoing.value.map((each) =>
      each.state === "sending" || each.state === "queued" ? { ...each, state: "waiting" } : each,
    );
    void pump();
  }
}

let pumping = false;

async function pump(): Promise<void> {
  if (pumping || !current || cantAct.value) return;
  pumping = true;
  try {
    await locked(async () => {
      for (let next = due(); next; next = due()) await go(next);
    });
  } finally {
    pumping = false;
  }
  if (due()) void pump();
}

async function locked(work: () => Promise<void>): Promise<void> {
  if (!navigator.locks) return work();
  const patience = AbortSignal.timeout(LOCK_PATIENCE_MS);
  try {
    await navigator.locks.request(LOCK, { signal: patience }, work);
  } catch (failure) {
    if (!patience.aborted || (failure as Error).name !== "TimeoutError") throw failure;
    await navigator.locks.request(LOCK, { steal: true }, work);
  }
}

function due(): Outgoing | undefined {
  const live = current !== null && !cantAct.value;
  // One that asks or has failed holds up those behind it on its thread: their order is meant.
  const blocked = new Set<string>();
  for (const each of outgoing.value) {
    if (blocked.has(each.threadId)) continue;
    const now = { now: Date.now(), live, lastTurn: lastTurnOf(each.threadId) };
    const verdict = decide(each, now);
    if (verdict === "send") return each;
    if (verdict === "ask") change(each.id, { state: "asks", why: doubt(each, now) });
    if (each.state !== "queued" && each.state !== "sending") blocked.add(each.threadId);
  }
  return undefined;
}

async function go(message: Outgoing): Promise<void> {
  const rpc = current!;
  change(message.id, { state: "sending", why: "" });
  const params = {
    threadId: message.threadId,
    clientUserMessageId: message.id,
    input: message.input,
    ifBusy: message.mode,
    ...message.options,
  };
  try {
    let answer: any;
    try {
      answer = await rpc.request("turn/start", params);
    } catch (failure) {
      if (!(failure instanceof RpcError) || !/not found|not loaded/i.test(failure.message)) throw failure;
      // Nobody has the thread open: it is loaded first.
      await rpc.request("thread/resume", { threadId: message.threadId, excludeTurns: true });
      answer = await rpc.request("turn/start", params);
    }
    const queued = answer.appmux?.queued;
    if (queued) change(message.id, { state: "queued", queueId: queued.id, place: queued.place });
    else setTimeout(() => take(message.id), SHOWN_MS);
  } catch (failure) {
    if (failure instanceof Gone) change(message.id, { state: "waiting" });
    else change(message.id, { state: "failed", why: (failure as Error).message });
  }
}

/** Messages that tell what became of ours. */
export function hearOfMessages(message: Message): void {
  const { method, params } = message;
  if (method === "item/started" && params.item.type === "userMessage") {
    const before = outgoing.value;
    if (arrived(before, params.item.clientId) !== before) take(params.item.clientId);
  } else if (method === "mux/queue") {
    hearOfQueue(params);
  }
}

function hearOfQueue(params: any): void {
  for (const turn of params.turns) {
    const own = outgoing.value.find((each) => each.id === turn.clientUserMessageId);
    if (own) change(own.id, { state: "queued", queueId: turn.id, place: turn.place });
  }
  const { what, id, why } = params.change ?? {};
  const own = outgoing.value.find((each) => each.queueId === id && each.state === "queued");
  if (!own) return;
  if (what === "started" || what === "removed") take(own.id);
  else if (what === "failed" || what === "lost") {
    change(own.id, { state: "failed", why: why ?? "its turn couldn’t be started" });
  }
  if (what === "removed" && params.change.by) say("A queued message was taken back.");
}

/** Take back a message: from the queue if it is there, else from this device. */
export async function withdraw(message: Outgoing): Promise<void> {
  if (message.state === "queued" && message.queueId !== null) {
    await current?.request("mux/queue/remove", { id: message.queueId });
  }
  take(message.id);
}

/** Whether the inbox knows that a turn runs on the thread. */
export function runsNow(threadId: string): boolean {
  return inbox.value.threads.get(threadId)?.turn != null;
}
