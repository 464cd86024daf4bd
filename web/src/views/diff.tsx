// Changes of files, one diff a file: folded past a screenful, long ones in parts.

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import type { FileView, Line } from "./changes.ts";
import { within } from "./format.ts";
import { Icon, IconButton, Strange } from "./parts.tsx";

/** Lines shown of a folded diff: a screenful of a phone. */
const FOLDED = 24;
/** Lines added with each press: a diff of 10,000 lines is never there at once. */
const PART = 400;
/** Characters of one line: a line of a megabyte says nothing more. */
const LINE_MOST = 1000;

export function Counts({ added, removed }: { added: number; removed: number }): JSX.Element {
  return (
    <span class="counts">
      {added > 0 && <span class="added">+{added}</span>}
      {removed > 0 && <span class="removed">−{removed}</span>}
    </span>
  );
}

const KINDS: Record<string, string> = { add: "new", delete: "removed", update: "" };

export function FileDiff(props: {
  file: FileView;
  directory: string;
  open?: boolean;
  onLine?: (line: Line) => void;
  marked?: (line: Line) => JSX.Element | null;
  /** Show the file itself, as it is on the host. */
  onFile?: (path: string) => void;
}): JSX.Element {
  const { file, directory, onFile } = props;
  // Until a person turns it, it is as it would be for one who comes now.
  const [turned, setTurned] = useState<boolean | null>(null);
  const open = turned ?? props.open ?? true;
  const [most, setMost] = useState(FOLDED);
  const fits = file.lines.length <= FOLDED + 6;
  const shown = fits ? file.lines : file.lines.slice(0, most);
  const name = within(file.path, directory);
  return (
    <div class="file" role="group" aria-label={name}>
      <div class="file-bar">
        <button
          type="button"
          class="file-head"
          aria-expanded={open}
          onClick={() => setTurned(!open)}
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
        {onFile && file.kind !== "delete" && (
          <IconButton icon="eye" label={`Look at ${name}`} onClick={() => onFile(file.movedTo ?? file.path)} />
        )}
      </div>
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
    </div>
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
