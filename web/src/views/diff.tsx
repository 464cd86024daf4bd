// Changes of files, one diff a file: folded past a screenful, long ones in parts.

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import gitDiffParser from "gitdiff-parser";
import type { FileUpdateChange } from "../wire.ts";
import { within } from "./format.ts";
import { Icon, Strange } from "./parts.tsx";

/** Lines shown of a folded diff: a screenful of a phone. */
const FOLDED = 24;
/** Lines added with each press: a diff of 10,000 lines is never there at once. */
const PART = 400;
/** Characters of one line: a line of a megabyte says nothing more. */
const LINE_MOST = 1000;

export interface Line {
  kind: "add" | "del" | "ctx" | "gap";
  text: string;
  before: number | null;
  after: number | null;
}

export interface FileView {
  path: string;
  movedTo: string | null;
  kind: "add" | "delete" | "update";
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
  kind: "add" | "delete" | "update";
  movedTo: string | null;
  diff: string | null;
  cut: boolean;
}): FileView {
  return made(file.path, file.kind, file.movedTo, file.diff ?? "", file.cut);
}

function made(
  path: string,
  kind: "add" | "delete" | "update",
  movedTo: string | null,
  diff: string,
  cut: boolean,
): FileView {
  const isDiff = kind === "update" || /^(?:diff --git |--- |@@ )/.test(diff);
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
  const [file] = gitDiffParser.parse(`diff --git a/f b/f\n--- a/f\n+++ b/f\n${body}`);
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
  return lines;
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

export function Counts({ added, removed }: { added: number; removed: number }): JSX.Element {
  return (
    <span class="counts">
      {added > 0 && <span class="added">+{added}</span>}
      {removed > 0 && <span class="removed">−{removed}</span>}
    </span>
  );
}

const KINDS = { add: "new", delete: "removed", update: "" };

export function FileDiff(props: {
  file: FileView;
  directory: string;
  open?: boolean;
  onLine?: (line: Line) => void;
  marked?: (line: Line) => JSX.Element | null;
}): JSX.Element {
  const { file, directory } = props;
  const [open, setOpen] = useState(props.open ?? true);
  const [most, setMost] = useState(FOLDED);
  const fits = file.lines.length <= FOLDED + 6;
  const shown = fits ? file.lines : file.lines.slice(0, most);
  const name = within(file.path, directory);
  return (
    <section class="file" aria-label={name}>
      <button
        type="button"
        class="file-head"
        aria-expanded={open}
        onClick={() => setOpen(!open)}
        title={file.path}
      >
        <Icon name="file" size={16} />
        <span class="file-name">
          <Strange text={name} />
          {file.movedTo && (
            <>
              {" → "}
              <Strange text={within(file.movedTo, directory)} />
            </>
          )}
        </span>
        {KINDS[file.kind] && <span class="tag">{KINDS[file.kind]}</span>}
        <Counts added={file.added} removed={file.removed} />
        <span class={`turner${open ? " open" : ""}`}>
          <Icon name="right" size={16} />
        </span>
      </button>
      {open && (
        <>
          <div class="diff">
            {shown.map((each, index) => (
              <DiffLine key={index} line={each} onLine={props.onLine} marked={props.marked} />
            ))}
          </div>
          {!fits && most < file.lines.length && (
            <button type="button" class="fold" onClick={() => setMost(most + PART)}>
              {file.lines.length - most <= PART
                ? `Show all ${file.lines.length.toLocaleString()} lines`
                : `Show ${PART} more of ${file.lines.length.toLocaleString()} lines`}
            </button>
          )}
          {file.cut && <p class="quiet pad">The rest is too long to be sent here.</p>}
        </>
      )}
    </section>
  );
}

function DiffLine(props: {
  line: Line;
  onLine?: (line: Line) => void;
  marked?: (line: Line) => JSX.Element | null;
}): JSX.Element {
  const { line } = props;
  if (line.kind === "gap") return <div class="line gap" aria-label="Lines left out">⋯</div>;
  const sign = line.kind === "add" ? "+" : line.kind === "del" ? "−" : " ";
  const cut = line.text.length > LINE_MOST;
  const text = cut ? line.text.slice(0, LINE_MOST) : line.text;
  const inner = (
    <>
      <span class="number" aria-hidden="true">
        {line.after ?? line.before}
      </span>
      <span class="sign">{sign}</span>
      <code>
        <Strange text={text} />
        {cut && <span class="quiet"> … {(line.text.length - LINE_MOST).toLocaleString()} more</span>}
      </code>
    </>
  );
  const said = props.marked?.(line) ?? null;
  return (
    <>
      {props.onLine ? (
        <button
          type="button"
          class={`line ${line.kind} tappable`}
          aria-label={`Comment on line ${line.after ?? line.before}: ${text.slice(0, 80)}`}
          onClick={() => props.onLine!(line)}
        >
          {inner}
        </button>
      ) : (
        <div class={`line ${line.kind}`}>{inner}</div>
      )}
      {said}
    </>
  );
}
