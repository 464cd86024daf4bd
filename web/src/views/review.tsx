// All changes of a turn or of the thread, file by file; lines are tapped, comments go as one message.

import { useEffect, useMemo, useState } from "preact/hooks";
import type { JSX } from "preact";
import { send } from "../composer/sending.ts";
import { threads } from "../connection/runtime.ts";
import type { ThreadState } from "../journal/thread.ts";
import { go, threadPath } from "../route.ts";
import { phase, sayError, scopes } from "../state.ts";
import { filesIn, looking, named } from "../threads/files.ts";
import { type FileView, filesOf, fileView, type Line } from "./changes.ts";
import { FileDiff } from "./diff.tsx";
import { count, within } from "./format.ts";
import { IconButton, Segmented, Strange } from "./parts.tsx";

interface Comment {
  path: string;
  line: Line;
  text: string;
}

export function ReviewView({ id }: { id: string }): JSX.Element {
  const [thread, setThread] = useState(() => threads.get(id));
  const [span, setSpan] = useState<"turn" | "thread">("turn");
  const [comments, setComments] = useState<Comment[]>([]);
  const [writing, setWriting] = useState<{ path: string; line: Line } | null>(null);
  useEffect(() => {
    setThread(threads.open(id, Date.now()));
  }, [id, phase.value === "live"]);
  const version = thread.version.value;
  const files = useMemo(() => changes(thread.state, span), [version, span]);
  const directory = thread.state.thread?.cwd ?? "";
  const added = files.reduce((sum, each) => sum + each.added, 0);
  const removed = files.reduce((sum, each) => sum + each.removed, 0);
  const submit = (): void => {
    send(id, { text: messageOf(comments, directory), pictures: [] }, "steer").catch(sayError);
    go(threadPath(id));
  };
  return (
    <section class="thread review" aria-label="Review">
      <header class="bar">
        <IconButton icon="back" label="Back to the thread" onClick={() => go(threadPath(id), true)} />
        <div class="bar-title">
          <h1>Review</h1>
          <p class="bar-sub">
            {count(files.length, "file")} · <span class="added">+{added}</span>{" "}
            <span class="removed">−{removed}</span>
          </p>
        </div>
        <Segmented
          label="Which changes"
          value={span}
          options={[
            { value: "turn", label: "Last turn" },
            { value: "thread", label: "Thread" },
          ]}
          onChange={setSpan}
        />
      </header>
      <div class="timeline" tabIndex={0} role="region" aria-label="Changes">
        <div class="timeline-content">
          {!files.length && <p class="quiet centered">No file was changed here.</p>}
          {files.length > 0 && scopes.value.has("drive") && (
            <p class="quiet">Tap a line to comment on it.</p>
          )}
          {files.map((file) => (
            <FileDiff
              key={file.path}
              file={file}
              directory={directory}
              onFile={lookAt(id, file)}
              onLine={scopes.value.has("drive") ? (line) => setWriting({ path: file.path, line }) : undefined}
              marked={(line) => (
                <Marks
                  own={comments.filter((each) => each.path === file.path && same(each.line, line))}
                  writing={writing?.path === file.path && same(writing.line, line)}
                  onWrite={(text) => {
                    if (text) setComments([...comments, { path: file.path, line, text }]);
                    setWriting(null);
                  }}
                  onRemove={(gone) => setComments(comments.filter((each) => each !== gone))}
                />
              )}
            />
          ))}
        </div>
      </div>
      {comments.length > 0 && (
        <div class="dock">
          <button type="button" class="button primary wide" onClick={submit}>
            Send {count(comments.length, "comment")} as one message
          </button>
        </div>
      )}
    </section>
  );
}

/** The caret goes to where a comment begins. */
function focusNew(box: HTMLTextAreaElement | null): void {
  if (box && !box.value) box.focus();
}

function same(a: Line, b: Line): boolean {
  return a.kind === b.kind && a.before === b.before && a.after === b.after;
}

function Marks(props: {
  own: Comment[];
  writing: boolean;
  onWrite: (text: string) => void;
  onRemove: (comment: Comment) => void;
}): JSX.Element | null {
  const [text, setText] = useState("");
  if (!props.own.length && !props.writing) return null;
  return (
    <div class="comments">
      {props.own.map((each, index) => (
        <p key={index} class="comment">
          <Strange text={each.text} />
          <IconButton icon="cross" label="Remove this comment" onClick={() => props.onRemove(each)} />
        </p>
      ))}
      {props.writing && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            props.onWrite(text.trim());
            setText("");
          }}
        >
          <label class="visually-hidden" for="comment">
            Comment
          </label>
          <textarea
            id="comment"
            rows={2}
            dir="auto"
            placeholder="Comment on this line"
            value={text}
            ref={focusNew}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <div class="answers-first">
            <button type="submit" class="button primary small">
              Add
            </button>
            <button type="button" class="button small" onClick={() => props.onWrite("")}>
              Leave it
            </button>
          </div>
        </form>
      )}
    </div>
  );
}

/** The changed files: of a whole turn as codex tells them, else of each change, file by file. */
function changes(state: ThreadState, span: "turn" | "thread"): FileView[] {
  const turns = [...state.turns.values()];
  const changed = state.order
    .map((id) => state.items.get(id)!)
    .filter((each) => each.item.type === "fileChange" && each.item.status !== "declined");
  const last = changed.at(-1)?.turnId;
  const told = turns.filter((each) => each.diff && (span === "thread" || each.id === last));
  const covered = new Set(told.map((each) => each.id));
  const files = new Map<string, FileView>();
  const add = (file: FileView): void => {
    const before = files.get(file.path);
    files.set(file.path, before ? joined(before, file) : file);
  };
  for (const each of changed) {
    if (span === "turn" && each.turnId !== last) continue;
    if (covered.has(each.turnId) || each.item.type !== "fileChange") continue;
    for (const change of each.item.changes) add(fileView(change));
  }
  for (const turn of told) for (const file of filesOf(turn.diff)) add(file);
  return [...files.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function joined(before: FileView, after: FileView): FileView {
  const gap: Line = { kind: "gap", text: "", before: null, after: null };
  return {
    ...after,
    kind: before.kind === "add" ? "add" : after.kind,
    lines: [...before.lines, gap, ...after.lines],
    added: before.added + after.added,
    removed: before.removed + after.removed,
  };
}

/** The message that all comments make. */
export function messageOf(comments: Comment[], directory: string): string {
  const parts = comments.map(({ path, line, text }) => {
    const number = line.after ?? line.before;
    const gone = line.kind === "del" ? " (a removed line)" : "";
    const quoted = line.text.trim() ? `\n> ${line.text.trim().slice(0, 200)}` : "";
    return `${within(path, directory)}:${number}${gone}${quoted}\n${text}`;
  });
  return `Comments on the changes:\n\n${parts.join("\n\n")}`;
}

/** Shows a changed file itself, where the broker lists it. */
function lookAt(threadId: string, file: FileView): (() => void) | undefined {
  const path = named(filesIn(threadId), file.movedTo ?? file.path)?.path;
  return path === undefined ? undefined : () => (looking.value = { threadId, path });
}
