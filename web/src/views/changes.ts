// Changes of files as lines: from what the app-server tells of one file, and from a whole diff.

import gitDiffParser from "gitdiff-parser";
import type { FileUpdateChange } from "../wire.ts";

export interface Line {
  kind: "add" | "del" | "ctx" | "gap";
  text: string;
  before: number | null;
  after: number | null;
}

export interface FileView {
  path: string;
  movedTo: string | null;
  kind: string;
  lines: Line[];
  added: number;
  removed: number;
  cut: boolean;
}

/** A change as the app-server tells it: of a new or removed file, its content. */
export function fileView(change: FileUpdateChange): FileView {
  const movedTo = change.kind.type === "update" ? change.kind.move_path : null;
  return made(change.path, change.kind.type, movedTo, change.diff, false);
}

/** A change as `mux/approvals/list` tells it. */
export function fileViewOf(file: {
  path: string;
  kind: string;
  movedTo: string | null;
  diff: string | null;
  cut: boolean;
}): FileView {
  return made(file.path, file.kind, file.movedTo, file.diff ?? "", file.cut);
}

function made(
  path: string,
  kind: string,
  movedTo: string | null,
  diff: string,
  cut: boolean,
): FileView {
  const isDiff = kind === "update" || /^(?:diff --git |@@ -\d)/.test(diff);
  const lines = isDiff ? hunks(diff) : whole(diff, kind === "delete" ? "del" : "add");
  const added = lines.filter((each) => each.kind === "add").length;
  const removed = lines.filter((each) => each.kind === "del").length;
  return { path, kind, movedTo, lines, added, removed, cut };
}

function whole(text: string, kind: "add" | "del"): Line[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((each, index) => ({
    kind,
    text: each,
    before: kind === "del" ? index + 1 : null,
    after: kind === "add" ? index + 1 : null,
  }));
}

function hunks(diff: string): Line[] {
  const body = diff.slice(Math.max(0, diff.search(/^@@ /m)));
  // The parser wants a head; the names in it aren't shown.
  const rough = roughly(body);
  let file;
  try {
    [file] = gitDiffParser.parse(`diff --git a/f b/f\n--- a/f\n+++ b/f\n${body}`);
  } catch {
    return rough;
  }
  const lines: Line[] = [];
  for (const hunk of file?.hunks ?? []) {
    if (lines.length) lines.push({ kind: "gap", text: "", before: null, after: null });
    for (const change of hunk.changes) {
      if (change.type === "insert") {
        lines.push({ kind: "add", text: change.content, before: null, after: change.lineNumber });
      } else if (change.type === "delete") {
        lines.push({ kind: "del", text: change.content, before: change.lineNumber, after: null });
      } else {
        const { oldLineNumber: before, newLineNumber: after } = change;
        lines.push({ kind: "ctx", text: change.content, before, after });
      }
    }
  }
  // A diff with wrong counts is read in part only: then its lines are shown as they stand.
  return lines.filter(isChange).length === rough.filter(isChange).length ? lines : rough;
}

function isChange(line: Line): boolean {
  return line.kind === "add" || line.kind === "del";
}

/** The lines of a diff whose counts are wrong: what they are is told by their first characters. */
function roughly(body: string): Line[] {
  const kinds: Record<string, Line["kind"]> = { "+": "add", "-": "del", "@": "gap" };
  return body
    .replace(/\n$/, "")
    .split("\n")
    .map((each) => ({ kind: kinds[each[0]!] ?? "ctx", text: each.slice(1), before: null, after: null }));
}

/** The files of a whole diff, as `turn/diff/updated` tells it. */
export function filesOf(diff: string): FileView[] {
  const parts = diff.split(/^(?=diff --git )/m).filter((each) => each.startsWith("diff --git "));
  return parts.map((part) => {
    const before = /^--- (?:a\/)?(.*)$/m.exec(part)?.[1] ?? "";
    const after = /^\+\+\+ (?:b\/)?(.*)$/m.exec(part)?.[1] ?? "";
    const head = /^diff --git a\/(.*) b\/(.*)$/m.exec(part);
    const removed = after === "/dev/null";
    const kind = before === "/dev/null" ? "add" : removed ? "delete" : "update";
    const path = (kind === "add" ? after : before) || head?.[2] || "";
    const movedTo = kind === "update" && after && after !== before ? after : null;
    const lines = hunks(part);
    return {
      path,
      movedTo,
      kind,
      lines,
      added: lines.filter((each) => each.kind === "add").length,
      removed: lines.filter((each) => each.kind === "del").length,
      cut: false,
    };
  });
}
