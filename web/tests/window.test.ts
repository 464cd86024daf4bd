// Which items of a long thread are shown: some screens, wherever one reads.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { emptyThread, forget, takeOlder, type ThreadState } from "../src/journal/thread.ts";
import { atEnd, downwards, rangeOf, surplus, upwards, type Window, weightOf } from "../src/views/window.ts";

function thread(lengths: number[]): ThreadState {
  const state = emptyThread("t");
  const entry = (length: number, index: number): never =>
    ({ turnId: "u", item: { id: `i${index}`, type: "agentMessage", text: "x".repeat(length) } }) as never;
  takeOlder(state, lengths.map(entry).reverse(), null);
  return state;
}

function weight(window: Window, state: ThreadState): number {
  const { from, to } = rangeOf(window, state);
  return state.order.slice(from, to).reduce((sum, id) => sum + weightOf(state.items.get(id)!), 0);
}

const LENGTHS = fc.array(fc.constantFrom(10, 500, 5_000, 90_000), { minLength: 1, maxLength: 120 });
const NONE: Window = { first: null, last: null };

test("the end of a thread is shown, and no more than some screens of it", () => {
  fc.assert(
    fc.property(LENGTHS, (lengths) => {
      const state = thread(lengths);
      const { from, to } = rangeOf(atEnd(NONE, state), state);
      assert.equal(to, lengths.length);
      assert.ok(from < to);
      // Without its first item it is light enough.
      assert.ok(weight({ first: state.order[from + 1] ?? null, last: null }, state) < 12 || from + 1 === to);
    }),
  );
});

test("upwards one gets to the beginning, downwards back to the end, and never sees a gap", () => {
  fc.assert(
    fc.property(LENGTHS, (lengths) => {
      const state = thread(lengths);
      let window = atEnd(NONE, state);
      for (let step = 0; rangeOf(window, state).from > 0; step++) {
        const before = rangeOf(window, state);
        window = upwards(window, state);
        const after = rangeOf(window, state);
        assert.ok(after.from < before.from);
        assert.ok(after.to > before.from, "what was at the top is still there");
        assert.ok(step < 200);
      }
      for (let step = 0; rangeOf(window, state).to < lengths.length; step++) {
        const before = rangeOf(window, state);
        window = downwards(window, state);
        const after = rangeOf(window, state);
        assert.ok(after.to > before.to);
        assert.ok(after.from < before.to, "what was at the bottom is still there");
        assert.ok(step < 200);
      }
      assert.equal(window.last, null);
    }),
  );
});

test("of much that came at once its end is shown alone; what comes bit by bit is added", () => {
  const state = thread(Array.from({ length: 60 }, () => 10));
  const before = { first: state.order[50]!, last: null };
  assert.equal(rangeOf(atEnd(before, state, state.order[55]), state).from, 50);
  const { from, to } = rangeOf(atEnd(before, state, state.order[10]), state);
  assert.ok(to - from < 20 && from === 52);
  // What was drawn last may have gone.
  assert.equal(rangeOf(atEnd(before, state, "gone"), state).from, 52);
});

test("what nobody looks at is let go of, and had again as older items", () => {
  const state = thread(Array.from({ length: 100 }, () => 9_000));
  const all = [...state.order];
  const window = atEnd(NONE, state);
  const first = window.first;
  const old = surplus(window, state);
  assert.ok(old > 50);
  const entries = all.map((id) => ({ turnId: "u", item: state.items.get(id)!.item }) as never).reverse();
  forget(state, old);
  assert.equal(state.items.size, 100 - old);
  assert.equal(rangeOf(window, state).from, 0);
  assert.equal(surplus(window, state), 0);
  takeOlder(state, entries, null);
  assert.deepEqual(state.order, all);
  assert.equal(state.order[rangeOf(window, state).from], first);
});
