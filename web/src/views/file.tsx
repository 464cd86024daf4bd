// A thread's files, from the host: seen here where that is of use, or saved on the device.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { Result as Opened } from "@mux/mux.files.open";
import { liveRpc } from "../connection/runtime.ts";
import { sayError } from "../state.ts";
import { filesIn, type Looking, looking, madeBy } from "../threads/files.ts";
import { bytes, shortPath } from "./format.ts";
import { Markdown } from "./markdown.tsx";
import { Icon, Sheet, Strange } from "./parts.tsx";

/** Pictures that a browser shows and that run nothing. */
const PICTURE = /^image\/(?:png|jpeg|gif|webp)$/;

/** What isn't said to be a text, and is one by its name. */
const TEXT = /^text\/|^application\/(?:json|toml|x-sh|xml|yaml|javascript)|\+(?:json|xml)$/;
const TEXT_NAME = /\.(?:txt|md|rst|log|py|[jt]sx?|rs|go|c|h|cpp|java|rb|sh|sql|css|toml|ya?ml|ini|cfg|lock|csv|diff|patch)$|(?:^|\/)(?:Makefile|Dockerfile|LICENSE|README)$/i;
const MARKDOWN = /\.(?:md|markdown)$/i;

/** Bytes of a text that is fetched to be read here. */
const READ_MOST = 1024 * 1024;

/** Characters of it that are shown. */
const SHOWN_MOST = 200_000;

const HOW: Record<string, string> = {
  changed: "changed", created: "new", generated: "made", uploaded: "uploaded", named: "named",
};

export function Files({ at }: { at: Looking }): JSX.Element {
  const close = (): void => void (looking.value = null);
  return "path" in at
    ? <File key={at.path} threadId={at.threadId} path={at.path} onClose={close} />
    : <List threadId={at.threadId} turnId={at.turnId} onClose={close} />;
}

function List(props: { threadId: string; turnId: string | null; onClose: () => void }): JSX.Element {
  const { threadId, turnId } = props;
  const all = filesIn(threadId);
  const shown = turnId === null ? all : madeBy(all, turnId);
  return (
    <Sheet title={turnId === null ? "Files of this thread" : "Files made"} onClose={props.onClose}>
      {!shown.length && <p class="quiet pad">This thread has touched no files yet.</p>}
      <ul class="menu">
        {shown.map((each) => (
          <li key={each.path}>
            <button type="button" title={each.path} onClick={() => (looking.value = { threadId, path: each.path })}>
              <Icon name="file" size={18} />
              <span class="file-name"><Strange text={each.name} /></span>
              <span class="tag">{HOW[each.how]}</span>
            </button>
          </li>
        ))}
      </ul>
    </Sheet>
  );
}

function File(props: { threadId: string; path: string; onClose: () => void }): JSX.Element {
  const { threadId, path } = props;
  const [opened, setOpened] = useState<Opened | null>(null);
  const [text, setText] = useState<string | null>(null);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    void look(threadId, path, stop.signal).then(
      (found) => {
        if (stop.signal.aborted) return;
        setOpened(found.opened);
        setText(found.text);
      },
      (failure: Error) => !stop.signal.aborted && setTrouble(failure.message),
    );
    return () => stop.abort();
  }, []);
  const name = path.slice(path.lastIndexOf("/") + 1);
  const picture = opened && PICTURE.test(opened.type);
  return (
    <Sheet title={name} onClose={props.onClose} wide>
      <p class="file-about quiet">
        <span title={path}><Strange text={shortPath(path)} /></span>
        {opened && ` · ${bytes(opened.bytes)}`}
      </p>
      {trouble ? (
        <p class="trouble" role="alert">{trouble}</p>
      ) : !opened ? (
        <p class="quiet" role="status">Loading …</p>
      ) : picture ? (
        <img
          class="file-picture"
          src={opened.url}
          alt={`The picture ${name}`}
          onError={() => setTrouble("The picture can’t be shown. Save it to look at it.")}
        />
      ) : text === null ? (
        <p class="pad">This file can’t be shown here. Save it to open it.</p>
      ) : (
        <Text name={name} text={text} />
      )}
      <p class="sheet-actions">
        <button type="button" class="button primary" onClick={() => void save(threadId, path).catch(sayError)}>
          Save
        </button>
      </p>
    </Sheet>
  );
}

function Text({ name, text }: { name: string; text: string }): JSX.Element {
  const cut = text.length > SHOWN_MOST;
  const shown = cut ? text.slice(0, SHOWN_MOST) : text;
  return (
    <>
      {MARKDOWN.test(name) ? (
        <div class="file-text"><Markdown text={shown} /></div>
      ) : (
        <pre class="file-text" tabIndex={0} role="region" aria-label={`The text of ${name}`}>
          <Strange text={shown} />
        </pre>
      )}
      {cut && <p class="quiet">Its beginning is shown. Save it to read the rest.</p>}
    </>
  );
}

function open(threadId: string, path: string): Promise<Opened> {
  return liveRpc().request<Opened>("mux/files/open", { threadId, path });
}

async function look(
  threadId: string,
  path: string,
  signal: AbortSignal,
): Promise<{ opened: Opened; text: string | null }> {
  const opened = await open(threadId, path);
  const isText = TEXT.test(opened.type) || TEXT_NAME.test(opened.name);
  if (!isText || opened.bytes > READ_MOST) return { opened, text: null };
  const answer = await fetch(opened.url, { signal });
  if (!answer.ok) throw new Error("The file couldn’t be fetched. Close this and try again.");
  return { opened, text: await answer.text() };
}

/** The address is good once, and what was looked at has had it: so another one. */
async function save(threadId: string, path: string): Promise<void> {
  const opened = await open(threadId, path);
  const link = document.createElement("a");
  link.href = opened.url;
  link.download = opened.name;
  link.click();
}
