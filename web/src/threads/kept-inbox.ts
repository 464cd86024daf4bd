// The inbox as it was, kept where it is had at once: an opened app has rows before it has anything else.

import { atOnce, keepAtOnce, TEXTS_KEPT_MS } from "../storage/store.ts";
import { groups, type Inbox, type Need, type Row } from "./inbox.ts";

const KEY = "texts/inbox";

/** Threads that are kept: some screens. All of them would take the start longer to read. */
const KEPT = 60;

interface Kept extends Omit<Inbox, "needs" | "threads"> {
  needs: Need[];
  threads: Row[];
}

/** Keep it. */
export function keepInbox(inbox: Inbox): void {
  const needs = [...inbox.needs.values()];
  const { running, recent } = groups(inbox);
  const others = new Set([...running, ...recent]);
  const asking = [...inbox.threads.values()].filter((each) => !others.has(each));
  const threads = [...asking, ...others].slice(0, KEPT);
  keepAtOnce(KEY, { ...inbox, needs, threads } satisfies Kept);
}

/** Keep it no more. */
export function dropInbox(): void {
  keepAtOnce(KEY, undefined);
}

/** What was kept, unless it is too old: then it is removed. */
export function keptInbox(now: number): Inbox | undefined {
  const found = atOnce<Kept>(KEY);
  if (!found) return undefined;
  if (now - found.at >= TEXTS_KEPT_MS) {
    dropInbox();
    return undefined;
  }
  const { needs, threads, ...rest } = found;
  return {
    ...rest,
    needs: new Map(needs.map((each) => [each.key, each])),
    threads: new Map(threads.map((each) => [each.id, each])),
  };
}
