// The inbox that is kept for the next start: what was on the screen, for a day.

import assert from "node:assert/strict";
import { test } from "node:test";
import { TEXTS_KEPT_MS } from "../src/storage/store.ts";
import { emptyInbox, type Inbox, type Need, type Row, takeChange } from "../src/threads/inbox.ts";
import { dropInbox, keepInbox, keptInbox } from "../src/threads/kept-inbox.ts";

const NOW = 1_000_000_000;

const stored = new Map<string, string>();
Object.assign(globalThis, {
  localStorage: {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => void stored.set(key, value),
    removeItem: (key: string) => void stored.delete(key),
  },
});

function inboxOf(threads: Partial<Row>[], needs: Partial<Need>[] = []): Inbox {
  const change = { threads, needs } as unknown as Parameters<typeof takeChange>[1];
  return takeChange(emptyInbox(), change, NOW);
}

test("what is kept is had again as it was", () => {
  const kept = inboxOf(
    [{ id: "a", title: "One", recencyAt: 2 }, { id: "b", title: "Two", recencyAt: 1 }],
    [{ key: "n", threadId: "b", kind: "question", ageSeconds: 1 } as Partial<Need>],
  );
  keepInbox(kept);
  const found = keptInbox(NOW + TEXTS_KEPT_MS - 1)!;
  // In another order, as the rows are sorted anyway.
  assert.deepEqual({ ...found, threads: new Map([...found.threads].sort()) }, kept);
});

test("after a day it is gone for good", () => {
  keepInbox(inboxOf([{ id: "a", title: "One" }]));
  assert.equal(keptInbox(NOW + TEXTS_KEPT_MS), undefined);
  assert.equal(stored.size, 0);
  assert.equal(keptInbox(NOW), undefined);
});

test("of very many threads those that are seen first are kept", () => {
  const rows = Array.from({ length: 500 }, (_, at) => ({ id: `${at}`, recencyAt: at }));
  const running = { id: "runs", recencyAt: 0, turn: { id: "t", by: null, runningSeconds: 1 } };
  keepInbox(inboxOf([...rows, running as unknown as Partial<Row>, { id: "asks" }], [
    { key: "n", threadId: "asks" },
  ]));
  const kept = [...keptInbox(NOW)!.threads.keys()];
  assert.deepEqual(kept.slice(0, 4), ["asks", "runs", "499", "498"]);
  assert.ok(kept.length < 100);
});

test("what is dropped isn't shown again", () => {
  keepInbox(inboxOf([{ id: "a" }]));
  dropInbox();
  assert.equal(keptInbox(NOW), undefined);
});
