// What was shared into the app: to a thread that one picks, or a new one.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { draftOf, keepDraft } from "../composer/drafts.ts";
import { readPictures } from "../composer/pictures.ts";
import { beginUpload } from "../composer/uploads.ts";
import { go, threadPath } from "../route.ts";
import { inbox } from "../state.ts";
import { drop, kept } from "../storage/store.ts";
import { titleOf } from "../threads/inbox.ts";
import { Icon, IconButton, Strange } from "./parts.tsx";

interface Shared {
  text: string;
  files: File[];
}

/** Threads offered: more are found by opening one and pasting. */
const OFFERED = 12;

export function ShareView(): JSX.Element {
  const [shared, setShared] = useState<Shared | null | undefined>(undefined);
  useEffect(() => {
    void kept<Shared>("shared").then((found) => setShared(found ?? null));
  }, []);
  const into = async (draft: string, path: string): Promise<void> => {
    const before = await draftOf(draft);
    const { pictures, files } = await readPictures(shared?.files ?? [], before.pictures);
    for (const each of files) beginUpload(draft, each);
    const text = [before.text, shared?.text].filter(Boolean).join("\n\n");
    keepDraft(draft, { text, pictures: [...before.pictures, ...pictures] });
    await drop("shared");
    go(path, true);
  };
  const rows = [...inbox.value.threads.values()]
    .sort((a, b) => (b.recencyAt ?? 0) - (a.recencyAt ?? 0))
    .slice(0, OFFERED);
  return (
    <section class="page" aria-label="Share">
      <header class="bar">
        <IconButton icon="cross" label="Leave it" onClick={() => go("/", true)} />
        <div class="bar-title">
          <h1>Send to</h1>
        </div>
      </header>
      <div class="page-body">
        {shared === null && (
          <p class="trouble" role="alert">
            What was shared didn’t arrive. Share it once more, with the app opened before.
          </p>
        )}
        {shared && (
          <>
            <p class="shared">
              <Strange text={shared.text} />
              {shared.files.length > 0 && <span class="tag">{shared.files.length} files</span>}
            </p>
            <ul class="menu">
              <li>
                <button type="button" onClick={() => void into("new", "/new")}>
                  <Icon name="plus" size={18} /> A new thread
                </button>
              </li>
              {rows.map((each) => (
                <li key={each.id}>
                  <button type="button" onClick={() => void into(each.id, threadPath(each.id))}>
                    <Strange text={titleOf(each)} />
                  </button>
                </li>
              ))}
            </ul>
          </>
        )}
      </div>
    </section>
  );
}
