// What a stranger wrote, made safe to read: hidden characters, escapes, commands, diffs.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { spans } from "../src/views/ansi.ts";
import { filesOf, fileView } from "../src/views/changes.ts";
import { lasted, pieces, plain, shortPath, within } from "../src/views/format.ts";
import { blocks, GrowingText, upTo } from "../src/views/blocks.ts";
import { emptyInbox, groups, takeChange, takePage } from "../src/threads/inbox.ts";
import { readInvitation, tidyLetters } from "../src/connection/invitation.ts";

test("what can't be seen is shown as such", () => {
  assert.deepEqual(pieces("rm \u202efdp.exe"), [{ text: "rm " }, { mark: "RLO" }, { text: "fdp.exe" }]);
  assert.deepEqual(pieces("a\u0000b\u001b["), [{ text: "a" }, { mark: "U+0000" }, { text: "b" }, { mark: "ESC" }, { text: "[" }]);
  assert.deepEqual(pieces("tab\tand\nline"), [{ text: "tab\tand\nline" }]);
  assert.deepEqual(pieces("x\u{e0041}y"), [{ text: "x" }, { mark: "U+E0041" }, { text: "y" }]);
  assert.equal(plain("a\u2066b"), "a\ufffdb");
});

test("no text that is shown holds a control or a bidi control, whatever came", () => {
  const strange = fc.string({ unit: fc.constantFrom("a", "\u202e", "\u0007", "\u2069", "\n", "\u061c", "é", "\u200f") });
  fc.assert(
    fc.property(strange, (text) => {
      const left = pieces(text).map((each) => ("text" in each ? each.text : "")).join("");
      assert.doesNotMatch(left, /[\u0000-\u0008\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]/);
    }),
  );
});

test("ANSI colours become classes, every other escape is dropped", () => {
  assert.deepEqual(spans("\u001b[31mred\u001b[0m plain"), [
    { text: "red", style: "ansi-red" },
    { text: " plain", style: "" },
  ]);
  assert.deepEqual(spans("\u001b]8;;http://x\u0007link\u001b]8;;\u0007"), [{ text: "link", style: "" }]);
  assert.deepEqual(spans("\u001b[2J\u001b[1;1Hseen"), [{ text: "seen", style: "" }]);
  assert.deepEqual(spans("10 %\r100 %\n"), [{ text: "100 %\n", style: "" }]);
  assert.deepEqual(spans("\u001b[38;5;9mx\u001b[38;2;1;2;3my"), [
    { text: "x", style: "ansi-red" },
    { text: "y", style: "ansi-red" },
  ]);
});

test("no escape survives, whatever came", () => {
  const strange = fc.string({ unit: fc.constantFrom("\u001b", "[", "]", "m", "3", "1", ";", "x", "\u0007", "\\", "P", "\r", "\n") });
  fc.assert(
    fc.property(strange, (text) => {
      for (const each of spans(text)) assert.doesNotMatch(each.text, /\u001b\[[0-9;]*m/);
    }),
  );
});

test("a change of a file is read line by line, a new file as it is", () => {
  const update = fileView({
    path: "/w/a.py",
    kind: { type: "update", move_path: null },
    diff: "@@ -2,3 +2,4 @@\n \n-old\n+new\n+more\n \n",
  });
  assert.deepEqual([update.added, update.removed], [2, 1]);
  assert.deepEqual(update.lines[1], { kind: "del", text: "old", before: 3, after: null });
  const wrong = fileView({ path: "/w/c", kind: { type: "update", move_path: null }, diff: "@@ -9,9 +1 @@\n-a\n+b\n+c\n d" });
  assert.deepEqual([wrong.added, wrong.removed], [2, 1]);
  const added = fileView({ path: "/w/b.py", kind: { type: "add" }, diff: "--- a title\nx\n" });
  assert.equal(added.added, 2);
});

test("a whole diff is cut into its files", () => {
  const diff =
    "diff --git a/a.py b/a.py\nindex 1..2 100644\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n" +
    "diff --git a/b.py b/b.py\nnew file mode 100644\n--- /dev/null\n+++ b/b.py\n@@ -0,0 +1 @@\n+z\n";
  const [first, second] = filesOf(diff);
  assert.deepEqual([first!.path, first!.kind, first!.added], ["a.py", "update", 1]);
  assert.deepEqual([second!.path, second!.kind, second!.added], ["b.py", "add", 1]);
});

test("markdown is cut at blank lines, but not within code and lists", () => {
  assert.deepEqual(blocks("one\n\ntwo"), ["one\n", "two"]);
  assert.equal(blocks("```\na\n\nb\n```").length, 1);
  assert.equal(blocks("1. a\n\n2. b\n\n   more").length, 1);
  assert.ok(blocks("- an item of a list\n".repeat(1000)).length > 5);
  const text = fc.array(fc.constantFrom("word", "", "```", "- item", "  more", "# head")).map((each) => each.join("\n"));
  fc.assert(fc.property(text, (each) => assert.equal(blocks(each).join("\n"), each)));
});

test("a text that grows is cut as one that came at once", () => {
  const part = fc.constantFrom("word ", "\n", "\n\n", "```\n", "- item\n", "  more", "# head\n", "1. one\n");
  fc.assert(
    fc.property(fc.array(part, { maxLength: 30 }), (parts) => {
      const growing = new GrowingText(12);
      const cut = (): string[] => growing.of(text).flatMap((each) => each.blocks);
      let text = "";
      for (const each of parts) {
        text += each;
        assert.equal(cut().join("\n"), text);
      }
      assert.deepEqual(cut(), blocks(text));
    }),
    { numRuns: 500 },
  );
});

test("the beginning of a text has what was asked for, in whole blocks, and no block more", () => {
  const texts = fc.array(fc.constantFrom("word ", "\n\n", "more words "), { maxLength: 30 });
  fc.assert(
    fc.property(texts, fc.nat(80), (pieces, most) => {
      const text = pieces.join("");
      const parts = new GrowingText(12).of(text);
      const all = parts.flatMap((each) => each.blocks);
      const begun = upTo(parts, most).flatMap((each) => each.blocks);
      assert.deepEqual(begun, all.slice(0, begun.length));
      assert.ok(begun.length === all.length || begun.join("\n").length >= most);
      assert.ok(begun.length === 1 || begun.slice(0, -1).join("\n").length < most);
    }),
  );
});

test("the inbox: what waits oldest first, what asks isn't also running", () => {
  const thread = (id: string, more: object) => ({
    id, title: id, preview: "", directory: "/w", status: "idle", archived: false, createdAt: 1, updatedAt: 1,
    recencyAt: 1, unread: false, readState: null, lastLine: null, turn: null, lastTurn: null, queued: 0,
    held: null, needs: 0, usage: null, ...more,
  });
  const need = (key: string, age: number, thread: string) => ({
    key, kind: "approval" as const, threadId: thread, rootThreadId: thread, title: "", directory: "", ageSeconds: age,
  });
  const turn = { id: "u", runningSeconds: 5, by: null };
  const page = {
    revision: 1, host: "box", appServer: { state: "ready", version: "1" }, nextCursor: null, limits: {},
    needs: [need("request/2", 1, "b"), need("request/1", 9, "a")],
    threads: [thread("a", { turn }), thread("b", { turn }), thread("c", { turn }), thread("d", { recencyAt: 9 }), thread("e", {})],
  };
  const inbox = takePage(emptyInbox(), page, 10_000, true);
  const found = groups(inbox);
  assert.deepEqual(found.needs.map((each) => each.key), ["request/1", "request/2"]);
  assert.deepEqual(found.running.map((each) => each.id), ["c"]);
  assert.equal(found.running[0]!.turn!.since, 5_000);
  assert.deepEqual(found.recent.map((each) => each.id), ["d", "e"]);
  const changed = takeChange(
    inbox,
    { revision: 2, needs: [], needsGone: ["request/1"], threads: [{ id: "c", turn: null }], threadsGone: ["e"] },
    11_000,
  );
  assert.deepEqual(groups(changed).needs.map((each) => each.key), ["request/2"]);
  assert.deepEqual(groups(changed).running.map((each) => each.id), ["a"]);
  assert.equal(changed.threads.get("c")!.title, "c");
  assert.equal(changed.threads.has("e"), false);
});

test("an invitation is a link, or eight letters", () => {
  assert.deepEqual(readInvitation("https://box/#pair=QuKM_x-1"), { ticket: "QuKM_x-1" });
  assert.deepEqual(readInvitation(" abcd efgh "), { letters: "ABCDEFGH" });
  assert.equal(readInvitation("hello there, this isn't one"), null);
  assert.equal(tidyLetters("ab-cd 23"), "ABCD23");
});

test("times and paths in words", () => {
  assert.equal(lasted(59_000), "59 s");
  assert.equal(lasted(185_000), "3 min 5 s");
  assert.equal(lasted(7_440_000), "2 h 4 min");
  assert.equal(shortPath("/home/ada/src/app"), "…/src/app");
  assert.equal(within("/w/a/b.py", "/w/a"), "b.py");
  assert.equal(within("/other/b.py", "/w/a"), "/other/b.py");
});
