// Messages of this device: when they go, when they ask, that each goes once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { arrived, decide, doubt, type Outgoing, restored, STALE_MS, stateOf } from "../src/composer/outbox.ts";

const NOW = 1_000_000_000;

function message(what: Partial<Outgoing> = {}): Outgoing {
  return {
    id: "m-1", threadId: "t", input: [], text: "words", pictures: 0, mode: "steer", at: NOW,
    lastTurn: "turn-1", options: {}, state: "waiting", why: "", confirmed: false, queueId: null,
    place: null, ...what,
  };
}

const LIVE = { now: NOW + 100, live: true, lastTurn: "turn-1" };

test("a message goes when there is a connection, and waits while there is none", () => {
  assert.equal(decide(message(), LIVE), "send");
  assert.equal(decide(message(), { ...LIVE, live: false }), "wait");
});

test("one that is under way, queued or has failed isn't sent again by itself", () => {
  for (const state of ["sending", "queued", "failed", "asks"] as const) {
    assert.equal(decide(message({ state }), LIVE), "wait");
  }
});

test("a message older than ten minutes asks before it goes", () => {
  const late = { ...LIVE, now: NOW + STALE_MS + 1 };
  assert.equal(decide(message(), late), "ask");
  assert.match(doubt(message(), late), /ten minutes/);
  assert.equal(decide(message({ confirmed: true }), late), "send");
});

test("a message whose thread has had a turn since asks before it goes", () => {
  const later = { now: NOW + 60_000, live: true, lastTurn: "turn-2" };
  assert.equal(decide(message(), later), "ask");
  assert.match(doubt(message(), later), /turn since/);
  assert.equal(decide(message(), { ...later, lastTurn: undefined }), "send");
  assert.equal(decide(message(), { ...later, now: NOW + 500 }), "send");
});

test("after a reload what was under way is sent again, under the same id", () => {
  const [again, queued] = restored([message({ state: "sending" }), message({ id: "m-2", state: "queued" })]);
  assert.equal(again!.state, "waiting");
  assert.equal(again!.id, "m-1");
  assert.equal(queued!.state, "queued");
});

test("a message that the journal has is let go", () => {
  const list = [message(), message({ id: "m-2" })];
  assert.deepEqual(arrived(list, "m-2").map((each) => each.id), ["m-1"]);
  assert.equal(arrived(list, "another"), list);
  assert.equal(arrived(list, null), list);
});

test("each state is said in words", () => {
  assert.equal(stateOf(message(), false), "waits for the connection");
  assert.equal(stateOf(message({ state: "queued", place: 2 }), true), "queued as number 2");
  assert.equal(stateOf(message({ state: "failed", why: "no" }), true), "not sent: no");
});
