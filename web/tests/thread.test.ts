// A thread's view: whoever left, and came back in any way that the protocol allows, sees what one
// sees who never left.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { apply, emptyThread, join, takeOlder, takePages, type ThreadState } from "../src/journal/thread.ts";
import { outputOf, shown, textOf } from "../src/journal/reading.ts";
import { split } from "../src/journal/split.ts";
import type { Message } from "../src/wire.ts";
import { introductions, merged, pagesAfter, type Recording, recordings } from "./recorded.ts";

const recorded = fc.constantFrom(...recordings);

function begun(recording: Recording): ThreadState {
  const state = emptyThread(recording.thread.id);
  state.thread = recording.thread;
  state.status = recording.thread.status.type;
  return state;
}

function hear(state: ThreadState, messages: Message[]): ThreadState {
  for (const each of messages) apply(state, each);
  return state;
}

/** A snapshot taken after so many messages, with the pages in parts as large as `page`. */
function joined(recording: Recording, count: number, page: number): ThreadState {
  const { messages } = recording;
  const state = answered(recording, count);
  const { items, turns } = pagesAfter(messages, count);
  takePages(state, { items: items.slice(0, page), turns, older: items.length > page ? "more" : null });
  for (let from = page; from < items.length; from += page) {
    takeOlder(state, items.slice(from, from + page), from + page < items.length ? "more" : null);
  }
  return state;
}

/** The answer to a resume after so many messages, and what runs, which is introduced after it. */
function answered(recording: Recording, count: number): ThreadState {
  const { messages, thread } = recording;
  const said = messages.slice(0, count).findLast((each) => each.method === "thread/status/changed");
  const status = said?.params.status ?? thread.status;
  const state = join({ thread: { ...thread, status }, model: "", effort: null });
  return hear(state, introductions(messages, count));
}

/** What a snapshot doesn't hold: a plan and a diff of a turn are told while it runs only. */
function comparable(state: ThreadState): unknown {
  const { items, turns, status } = shown(state) as any;
  return {
    status,
    items: [...items].sort((a: any, b: any) => (a[1].id < b[1].id ? -1 : 1)),
    turns: turns.map((each: any) => each.slice(0, 2)),
  };
}

test("a delta that is taken in by pieces is the same in the end, and no character is cut in two", () => {
  fc.assert(
    fc.property(recorded, fc.integer({ min: 1, max: 40 }), (recording, most) => {
      const pieces = merged(recording.messages).flatMap((whole) => {
        const found: Message[] = [];
        let rest = whole;
        for (let cut = split(rest, most); cut; cut = split(rest, most)) {
          found.push(cut[0]);
          rest = cut[1];
          assert.ok(found.at(-1)!.params.delta.isWellFormed());
        }
        return [...found, rest];
      });
      assert.ok(pieces.every((each) => typeof each.params?.delta !== "string" || each.params.delta.length <= most + 1));
      assert.deepEqual(shown(hear(begun(recording), pieces)), shown(hear(begun(recording), recording.messages)));
    }),
  );
  const [first, rest] = split({ method: "m", params: { delta: "a\u{1f600}b" } } as Message, 2)!;
  assert.deepEqual([first.params.delta, rest.params.delta], ["a\u{1f600}", "b"]);
});

test("the recordings are there, and say something", () => {
  assert.ok(recordings.length >= 6);
  for (const each of recordings) {
    const state = hear(begun(each), each.messages);
    assert.ok(state.order.length > 1, each.name);
    assert.ok([...state.items.values()].every((item) => !item.running), each.name);
  }
});

test("a replay from where one left gives the same view, merged or not, cut anywhere", () => {
  fc.assert(
    fc.property(recorded, fc.array(fc.nat(), { maxLength: 4 }), fc.boolean(), (recording, cuts, merges) => {
      const { messages } = recording;
      const whole = hear(begun(recording), messages);
      const state = begun(recording);
      const places = [...cuts.map((each) => each % messages.length), messages.length].sort((a, b) => a - b);
      let from = 0;
      for (const place of places) {
        const missed = messages.slice(from, place);
        hear(state, merges ? merged(missed) : missed);
        from = place;
      }
      assert.deepEqual(shown(state), shown(whole));
    }),
    { numRuns: 300 },
  );
});

test("a replay that says again what was heard changes nothing in the end", () => {
  fc.assert(
    fc.property(recorded, fc.nat(), fc.nat(), (recording, a, b) => {
      const { messages } = recording;
      const whole = hear(begun(recording), messages);
      const left = a % (messages.length + 1);
      // Only a place where nothing runs may lie before what was heard: so does the broker's cursor.
      const earlier = b % (left + 1);
      if (introductions(messages, earlier).length) return;
      const state = hear(begun(recording), messages.slice(0, left));
      hear(state, messages.slice(earlier));
      assert.deepEqual(shown(state), shown(whole));
    }),
    { numRuns: 300 },
  );
});

test("a snapshot taken anywhere, in pages of any size, goes on to the same view", () => {
  fc.assert(
    fc.property(recorded, fc.nat(), fc.nat(), fc.integer({ min: 1, max: 9 }), (recording, a, b, page) => {
      const { messages } = recording;
      const place = a % (messages.length + 1);
      const end = place + (b % (messages.length - place + 1));
      const whole = hear(begun(recording), messages.slice(0, end));
      const state = hear(joined(recording, place, page), messages.slice(place, end));
      assert.deepEqual(comparable(state), comparable(whole));
    }),
    { numRuns: 500 },
  );
});

test("messages that come while the pages are read are newer than the pages", () => {
  fc.assert(
    fc.property(recorded, fc.nat(), fc.nat(), (recording, a, b) => {
      const { messages } = recording;
      const asked = a % (messages.length + 1);
      const paged = asked + (b % (messages.length - asked + 1));
      const whole = hear(begun(recording), messages);
      const state = hear(answered(recording, asked), messages.slice(asked, paged));
      takePages(state, { ...pagesAfter(messages, paged), older: null });
      hear(state, messages.slice(paged));
      assert.deepEqual(comparable(state), comparable(whole));
    }),
    { numRuns: 300 },
  );
});

test("a command in the background goes on after its turn", () => {
  const state = emptyThread("t");
  const item = { type: "commandExecution", id: "c", command: "x", aggregatedOutput: null } as never;
  apply(state, { method: "item/started", params: { threadId: "t", turnId: "u", item } });
  const turn = { id: "u", status: "completed", error: null, items: [] };
  apply(state, { method: "turn/completed", params: { threadId: "t", turn } });
  const params = { threadId: "t", turnId: "u", itemId: "c", delta: "later" };
  apply(state, { method: "item/commandExecution/outputDelta", params });
  assert.equal(outputOf(state.items.get("c")!), "later");
});

test("a delta of an item that is over adds nothing", () => {
  const state = emptyThread("t");
  const item = { type: "agentMessage", id: "m", text: "" } as never;
  apply(state, { method: "item/started", params: { threadId: "t", turnId: "u", item } });
  apply(state, { method: "item/agentMessage/delta", params: { threadId: "t", turnId: "u", itemId: "m", delta: "Hel" } });
  assert.equal(textOf(state.items.get("m")!), "Hel");
  const done = { type: "agentMessage", id: "m", text: "Hello" } as never;
  apply(state, { method: "item/completed", params: { threadId: "t", turnId: "u", item: done } });
  const changed = apply(state, {
    method: "item/agentMessage/delta",
    params: { threadId: "t", turnId: "u", itemId: "m", delta: "lo" },
  });
  assert.equal(changed, false);
  assert.equal(textOf(state.items.get("m")!), "Hello");
});

test("messages of other threads change nothing", () => {
  const state = emptyThread("t");
  const item = { type: "agentMessage", id: "m", text: "" } as never;
  assert.equal(apply(state, { method: "item/started", params: { threadId: "other", turnId: "u", item } }), false);
  assert.equal(state.order.length, 0);
});

test("what runs when its turn is broken off runs no more", () => {
  const state = emptyThread("t");
  const item = { type: "commandExecution", id: "c", command: "x" } as never;
  apply(state, { method: "item/started", params: { threadId: "t", turnId: "u", item } });
  apply(state, {
    method: "turn/completed",
    params: { threadId: "t", turn: { id: "u", status: "interrupted", error: null, items: [] } },
  });
  assert.equal(state.items.get("c")!.running, false);
  assert.equal(state.turns.get("u")!.status, "interrupted");
});
