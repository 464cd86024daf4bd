// What waits for a word, kept in step with the inbox, and answered over a live connection only.

import { type By, personOf } from "../people.ts";
import { Gone, type Rpc, RpcError } from "../connection/rpc.ts";
import { cantAct, inbox, requests, say, sayError, settled } from "../state.ts";
import type { Message } from "../wire.ts";
import { decided, type Request, takeRequest } from "./requests.ts";

/** What was decided stays readable for so long. */
const SETTLED_MS = 4000;

const details = new Set<number>();

/** Read everything that waits, with its details. */
export async function readRequests(rpc: Rpc): Promise<void> {
  const { approvals } = await rpc.request("mux/approvals/list", {});
  const now = Date.now();
  requests.value = new Map(
    approvals.map((said: any) => [said.id, takeRequest(said, now)] as const),
  );
}

/** The inbox has changed: read what is new in it, and let go of what isn't there any more. */
export function followInbox(rpc: Rpc): void {
  const waiting = new Set<number>();
  for (const need of inbox.value.needs.values()) {
    if (need.id === undefined) continue;
    waiting.add(need.id);
    if (!requests.value.has(need.id) && !details.has(need.id)) void readOne(rpc, need.id);
  }
  const gone = [...requests.value.keys()].filter((id) => !waiting.has(id));
  if (!gone.length) return;
  const left = new Map(requests.value);
  for (const id of gone) left.delete(id);
  requests.value = left;
}

async function readOne(rpc: Rpc, id: number): Promise<void> {
  details.add(id);
  try {
    const { approvals } = await rpc.request("mux/approvals/list", { id });
    const now = Date.now();
    const all = new Map(requests.value);
    for (const said of approvals) all.set(said.id, takeRequest(said, now));
    requests.value = all;
  } catch (failure) {
    if (!(failure instanceof Gone)) sayError(failure);
  } finally {
    details.delete(id);
  }
}

/** Messages about requests, in the order in which they come. */
export function hearOfRequests(message: Message): void {
  const { method, params } = message;
  if (method === "mux/approvals/changed") {
    const found = requests.value.get(params.id);
    if (!found) return;
    const { votes, waitsFor, policy } = params;
    requests.value = new Map(requests.value).set(params.id, { ...found, votes, waitsFor, policy });
  } else if (method === "mux/approvals/decided") {
    settle(params.id, sentence(params));
  } else if (method === "serverRequest/resolved") {
    if (!requests.value.has(params.requestId)) return;
    settle(params.requestId, settled.value.get(params.requestId) ?? "Decided");
  }
}

function sentence(said: { decision: string; by: By | null; how: string }): string {
  const what = decided(said.decision);
  const first = what[0]!.toUpperCase() + what.slice(1);
  return said.by ? `${first} by ${personOf(said.by)}` : first;
}

function settle(id: number, text: string): void {
  if (requests.value.has(id)) {
    const left = new Map(requests.value);
    left.delete(id);
    requests.value = left;
  }
  settled.value = new Map(settled.value).set(id, text);
  setTimeout(() => {
    const left = new Map(settled.value);
    left.delete(id);
    settled.value = left;
  }, SETTLED_MS);
}

/** Answer a request. Nothing of it is kept: without a live connection it is not answered. */
export async function answer(rpc: Rpc | null, request: Request, result: unknown): Promise<boolean> {
  if (!rpc || cantAct.value) {
    say(cantAct.value || "Not connected.", "error");
    return false;
  }
  try {
    const said = await rpc.request("mux/approvals/answer", { id: request.id, result });
    if (!said.decided) say(`Your answer counts. It waits for ${said.waitsFor}.`);
    return true;
  } catch (failure) {
    if (failure instanceof Gone) say("The connection was lost: look whether it was decided.", "error");
    else if (failure instanceof RpcError) say(failure.message, "error");
    else sayError(failure);
    return false;
  }
}
