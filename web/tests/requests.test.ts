// Approvals: the buttons that a request offers, what they send, and when a press counts.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  choicesOf, COMMAND, decided, FILES, GUARD_MS, PERMISSIONS, plainCommand, PressGuard, refusal, takeRequest,
} from "../src/approvals/requests.ts";

function request(method: string, params: object, choices: unknown[] = []) {
  return takeRequest({ id: 1, method, threadId: "t", ageSeconds: 2, params, choices }, 10_000);
}

test("the buttons are those that the request offers, in its words", () => {
  const rule = { acceptWithExecpolicyAmendment: { execpolicy_amendment: ["pip", "install"] } };
  const found = choicesOf(request(COMMAND, {}, ["accept", rule, "cancel"]));
  assert.deepEqual(found.map((each) => each.label), [
    "Approve", "Approve, and always “pip install …”", "Decline and stop the turn",
  ]);
  assert.deepEqual(found[1]!.result, { decision: rule });
});

test("a request without a list has the usual two; its age is by this device's clock", () => {
  const made = request(FILES, {});
  assert.deepEqual(choicesOf(made).map((each) => each.key), ["accept", "decline"]);
  assert.equal(made.since, 8_000);
});

test("a decision that isn't known makes no button", () => {
  assert.deepEqual(choicesOf(request(COMMAND, {}, ["accept", { grantTheMoon: {} }])).length, 1);
});

test("permissions are granted as they were asked for, or not at all", () => {
  const asked = { network: { enabled: true }, fileSystem: null };
  const [turn, session, no] = choicesOf(request(PERMISSIONS, { permissions: asked }));
  assert.deepEqual(turn!.result, { permissions: { network: { enabled: true } }, scope: "turn" });
  assert.equal((session!.result as { scope: string }).scope, "session");
  assert.deepEqual(no!.result, { permissions: {}, scope: "turn" });
});

test("saying why declines, or stops the turn where that is all there is", () => {
  assert.deepEqual(refusal(request(COMMAND, {}, ["accept", "decline", "cancel"])), { decision: "decline" });
  assert.deepEqual(refusal(request(COMMAND, {}, ["accept", "cancel"])), { decision: "cancel" });
  assert.equal(refusal(request("item/tool/requestUserInput", {})), null);
});

test("the shell around a command is left out only where what is left is the command", () => {
  assert.equal(plainCommand("/bin/bash -lc 'ls -la && cat x'"), "ls -la && cat x");
  assert.equal(plainCommand(`/bin/bash -lc "echo \\"a\\" 'b'"`), `echo "a" 'b'`);
  assert.equal(plainCommand("/bin/bash -lc ls"), "ls");
  const pieces = `/bin/bash -lc 'a'"'"'b; rm -rf /'`;
  assert.equal(plainCommand(pieces), pieces);
  const expands = `/bin/bash -lc "echo $(id)"`;
  assert.equal(plainCommand(expands), expands);
  assert.equal(plainCommand("make test"), "make test");
  assert.equal(plainCommand("evil -lc 'ls'"), "evil -lc 'ls'");
});

test("decisions are said in words", () => {
  assert.equal(decided("accept"), "approved");
  assert.equal(decided("something new"), "decided");
});

test("no press counts for half a second after a card appeared, moved or changed", () => {
  const guard = new PressGuard(1, 1000);
  guard.down(1000 + GUARD_MS - 1);
  assert.equal(guard.press(1, 1000 + GUARD_MS + 100), false);
  guard.down(1000 + GUARD_MS);
  assert.equal(guard.press(1, 1000 + GUARD_MS + 100), true);
  guard.changed(1, 2000);
  guard.down(2100);
  assert.equal(guard.press(1, 2800), false);
});

test("a press answers the request that was there when the finger went down, and no other", () => {
  const guard = new PressGuard(1, 0);
  guard.down(1000);
  guard.changed(2, 1010);
  assert.equal(guard.press(2, 1600), false);
  assert.equal(guard.press(1, 1600), false);
});

test("a key, which has no finger, is held to the same", () => {
  const guard = new PressGuard(1, 0);
  assert.equal(guard.press(1, GUARD_MS - 1), false);
  assert.equal(guard.press(1, GUARD_MS), true);
});

test("whatever happens, a press that counts was on a card that stood still for half a second", () => {
  const steps = fc.array(
    fc.record({ after: fc.nat(700), what: fc.constantFrom("down", "press", "change", "move"), id: fc.nat(2) }),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      let now = 0;
      let still = 0;
      let id = 0;
      let down: { id: number; at: number; still: number } | null = null;
      const guard = new PressGuard(id, now);
      for (const step of list) {
        now += step.after;
        if (step.what === "down") {
          guard.down(now);
          down = { id, at: now, still };
        } else if (step.what === "press") {
          const counts = guard.press(id, now);
          const basis: { id: number; at: number; still: number } = down ?? { id, at: now, still };
          assert.equal(counts, basis.id === id && basis.at - basis.still >= GUARD_MS);
          down = null;
        } else {
          if (step.what === "change") id = step.id;
          guard.changed(id, now);
          still = now;
        }
      }
    }),
  );
});
