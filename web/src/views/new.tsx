// A new thread: where, with which model, what it may do, and the first message.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { draftOf, keepDraft } from "../composer/drafts.ts";
import { readPictures } from "../composer/pictures.ts";
import { beginUpload, isReady, takeFiles, uploadsOf } from "../composer/uploads.ts";
import { type Draft, send } from "../composer/sending.ts";
import { liveRpc } from "../connection/runtime.ts";
import { back, go, threadPath } from "../route.ts";
import { cantAct, inbox, sayError, scopes } from "../state.ts";
import type { FsReadDirectoryResponse, ThreadStartResponse } from "../wire.ts";
import { Icon, IconButton, Sheet, Strange } from "./parts.tsx";
import { useModels } from "./menu.tsx";
import { hostName } from "./status.tsx";
import { Uploads } from "./uploads.tsx";

const DRAFT = "new";

/** Directories offered: as many as one sees at a glance. */
const RECENT = 6;

const MAY = [
  { value: "", label: "The host’s choice" },
  { value: "read-only", label: "Read only" },
  { value: "workspace-write", label: "Write in its directory" },
  { value: "danger-full-access", label: "Everything" },
];

export function NewView(): JSX.Element {
  const recent = recentDirectories();
  const [directory, setDirectory] = useState(recent[0] ?? "");
  const [model, setModel] = useState("");
  const [may, setMay] = useState("");
  const [draft, setDraft] = useState<Draft>({ text: "", pictures: [] });
  const [busy, setBusy] = useState(false);
  const [browsing, setBrowsing] = useState(false);
  const models = useModels();
  const admin = scopes.value.has("admin");
  useEffect(() => {
    void draftOf(DRAFT).then(setDraft);
  }, []);
  useEffect(() => {
    if (!directory && recent[0]) setDirectory(recent[0]);
  }, [recent[0]]);
  const change = (next: Draft): void => {
    setDraft(next);
    keepDraft(DRAFT, next);
  };
  const attach = async (files: Iterable<File>): Promise<void> => {
    const { pictures, files: others } = await readPictures(files, draft.pictures);
    for (const each of others) beginUpload(DRAFT, each);
    change({ ...draft, pictures: [...draft.pictures, ...pictures] });
  };
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      const params = {
        ...(directory && { cwd: directory }),
        ...(model && { model }),
        ...(may && { sandbox: may }),
      };
      const answer = await liveRpc().request<ThreadStartResponse>("thread/start", params);
      const said = takeFiles(draft, attached);
      change({ text: "", pictures: [] });
      go(threadPath(answer.thread.id), true);
      await send(answer.thread.id, said, "steer");
    } catch (failure) {
      sayError(failure);
      setBusy(false);
    }
  };
  const attached = uploadsOf(DRAFT);
  const ready = isReady(draft, attached) && !cantAct.value && !busy;
  return (
    <section class="page" aria-label="New thread">
      <header class="bar">
        <IconButton icon="back" label="Back" class="only-narrow" onClick={back} />
        <div class="bar-title">
          <h1>New thread</h1>
          <p class="bar-sub">
            on <Strange text={hostName()} />
          </p>
        </div>
      </header>
      <form class="page-body" onSubmit={submit}>
        <label class="field">
          <span>What should be done?</span>
          <textarea
            rows={5}
            dir="auto"
            value={draft.text}
            onInput={(event) => change({ ...draft, text: event.currentTarget.value })}
          />
        </label>
        {attached.length > 0 && <Uploads list={attached} />}
        <label class="attach button small">
          <Icon name="image" size={18} /> Add pictures and files
          {draft.pictures.length > 0 && ` (${draft.pictures.length})`}
          <input
            type="file"
            multiple
            class="visually-hidden"
            onChange={(event) => void attach(event.currentTarget.files ?? [])}
          />
        </label>
        <fieldset>
          <legend>Directory</legend>
          <div class="choices">
            {recent.map((each) => (
              <button
                key={each}
                type="button"
                class={`choice${each === directory ? " on" : ""}`}
                aria-pressed={each === directory}
                onClick={() => setDirectory(each)}
              >
                <Icon name="folder" size={18} />
                <Strange text={each} />
              </button>
            ))}
          </div>
          <label class="field">
            <span class="visually-hidden">Another directory</span>
            <input
              type="text"
              placeholder="/another/directory"
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              value={directory}
              onInput={(event) => setDirectory(event.currentTarget.value)}
            />
          </label>
          {admin && (
            <button type="button" class="button small" onClick={() => setBrowsing(true)}>
              <Icon name="folder" size={18} /> Browse
            </button>
          )}
        </fieldset>
        <div class="two">
          <label class="field">
            <span>Model</span>
            <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              <option value="">The host’s choice</option>
              {models.map((each) => (
                <option key={each.id} value={each.model}>
                  {each.displayName}
                </option>
              ))}
            </select>
          </label>
          <label class="field">
            <span>It may</span>
            <select value={may} onChange={(event) => setMay(event.currentTarget.value)}>
              {(admin ? MAY : MAY.slice(0, 2)).map((each) => (
                <option key={each.value} value={each.value}>
                  {each.label}
                </option>
              ))}
            </select>
          </label>
        </div>
        {cantAct.value && (
          <p class="blocked" role="status">
            {cantAct.value}
          </p>
        )}
        <button type="submit" class="button primary wide" disabled={!ready}>
          {busy ? "Beginning …" : "Begin"}
        </button>
      </form>
      {browsing && (
        <Browser
          start={directory || "/"}
          onChoose={(path) => {
            setDirectory(path);
            setBrowsing(false);
          }}
          onClose={() => setBrowsing(false)}
        />
      )}
    </section>
  );
}

function recentDirectories(): string[] {
  const found = new Set<string>();
  const rows = [...inbox.value.threads.values()];
  rows.sort((a, b) => (b.recencyAt ?? 0) - (a.recencyAt ?? 0));
  for (const each of rows) if (each.directory) found.add(each.directory);
  return [...found].slice(0, RECENT);
}

function Browser(props: {
  start: string;
  onChoose: (path: string) => void;
  onClose: () => void;
}): JSX.Element {
  const [path, setPath] = useState(props.start);
  const [names, setNames] = useState<string[]>([]);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let late = false;
    setTrouble("");
    Promise.resolve()
      .then(() => liveRpc().request<FsReadDirectoryResponse>("fs/readDirectory", { path }))
      .then((answer) => {
        if (late) return;
        const folders = answer.entries.filter((each) => each.isDirectory).map((each) => each.fileName);
        setNames(folders.sort((a, b) => Number(a.startsWith(".")) - Number(b.startsWith(".")) || a.localeCompare(b)));
      })
      .catch((failure) => !late && setTrouble(failure.message));
    return () => {
      late = true;
    };
  }, [path]);
  const above = path.replace(/\/[^/]*\/?$/, "") || "/";
  return (
    <Sheet title="Directory" onClose={props.onClose}>
      <p class="path">
        <Strange text={path} />
      </p>
      {trouble && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      <ul class="menu">
        {path !== "/" && (
          <li>
            <button type="button" onClick={() => setPath(above)}>
              <Icon name="back" size={18} /> Up
            </button>
          </li>
        )}
        {names.map((each) => (
          <li key={each}>
            <button type="button" onClick={() => setPath(`${path === "/" ? "" : path}/${each}`)}>
              <Icon name="folder" size={18} /> <Strange text={each} />
            </button>
          </li>
        ))}
      </ul>
      <button type="button" class="button primary wide" onClick={() => props.onChoose(path)}>
        Use this one
      </button>
    </Sheet>
  );
}
