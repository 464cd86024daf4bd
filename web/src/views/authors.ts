// Who said what: our own messages by their ids, others' as the broker's digest of the thread says.

import { signal } from "@preact/signals";
import { rpc } from "../connection/runtime.ts";
import type { Item } from "../journal/thread.ts";
import { personOf } from "../people.ts";
import type { FollowedThread } from "../threads/follow.ts";

const byTurn = signal<ReadonlyMap<string, string>>(new Map());
const asked = new Map<string, number>();

/** A digest is read again when there are turns that it didn't tell of. */
const AGAIN_MS = 3000;

/** A function that names who said a message; it is empty where that isn't known. */
export function authors(thread: FollowedThread, _version: number): (item: Item) => string {
  const known = byTurn.value;
  const unknown = [...thread.state.turns.keys()].some((id) => !known.has(id));
  if (unknown && thread.followed) void read(thread.state.id);
  return (item) => {
    const name = known.get(item.turnId) ?? "";
    return name;
  };
}

async function read(threadId: string): Promise<void> {
  const before = asked.get(threadId) ?? 0;
  if (Date.now() - before < AGAIN_MS || !rpc()) return;
  asked.set(threadId, Date.now());
  try {
    const digest = await rpc()!.request("mux/thread/digest", { threadId, after: null });
    const all = new Map(byTurn.value);
    for (const turn of digest.turns) if (turn.by) all.set(turn.id, capital(personOf(turn.by)));
    for (const turn of digest.turns) if (!all.has(turn.id)) all.set(turn.id, "");
    byTurn.value = all;
  } catch {
    // A broker without the method: then nobody is named.
  }
}

function capital(name: string): string {
  return name === "you" ? "You" : name;
}
