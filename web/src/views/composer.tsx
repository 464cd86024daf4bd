// What one says: grows with the text, says what sending does, and shows where each message is.

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { draftOf, keepDraft, textOf } from "../composer/drafts.ts";
import { type Mode, type Outgoing, stateOf } from "../composer/outbox.ts";
import { originalOf, readPictures } from "../composer/pictures.ts";
import { beginUpload, isReady, takeFiles, uploadsOf } from "../composer/uploads.ts";
import { again, type Draft, runsNow, send, withdraw } from "../composer/sending.ts";
import { liveRpc } from "../connection/runtime.ts";
import { runningTurn } from "../journal/reading.ts";
import { cantAct, outdated, outgoing, phase, queues, sayError, scopes } from "../state.ts";
import type { FollowedThread } from "../threads/follow.ts";
import { nextTurn } from "./menu.tsx";
import { Icon, IconButton, Segmented, Strange } from "./parts.tsx";
import { Uploads } from "./uploads.tsx";

const MODES = [
  { value: "steer", label: "Steer" },
  { value: "queue", label: "Queue" },
] as const;

export function Composer(props: {
  thread: FollowedThread;
  id: string;
  asks: boolean;
}): JSX.Element | null {
  const { thread, id } = props;
  const [draft, setDraft] = useState<Draft>(() => ({ text: textOf(id), pictures: [] }));
  const [mode, setMode] = useState<Mode>("steer");
  const box = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  useEffect(() => {
    let late = false;
    void draftOf(id).then((found) => !late && setDraft(found));
    return () => {
      late = true;
    };
  }, [id]);
  useEffect(() => grow(box.current), [draft.text]);
  const turn = runningTurn(thread.read());
  const running = turn !== null || runsNow(id);
  const mine = outgoing.value.filter((each) => each.threadId === id);
  const change = (next: Draft): void => {
    setDraft(next);
    keepDraft(id, next);
  };
  const attached = uploadsOf(id);
  const ready = isReady(draft, attached) && !outdated.value;
  const submit = (): void => {
    if (!ready) return;
    const said = takeFiles(draft, attached);
    change({ text: "", pictures: [] });
    send(id, said, running ? mode : "steer", nextTurn(id)).catch(sayError);
  };
  const latest = useRef(draft);
  latest.current = draft;
  const attach = async (list: Iterable<File>, whole = false, instead: string[] = []): Promise<void> => {
    const others = draft.pictures.filter((each) => !instead.includes(each));
    const { pictures, files: large } = await readPictures(list, others, whole);
    for (const each of large) beginUpload(id, each);
    // Something may have been typed while the pictures were read.
    const now = latest.current;
    const kept = now.pictures.filter((each) => !instead.includes(each));
    if (pictures.length || instead.length) change({ ...now, pictures: [...kept, ...pictures] });
  };
  const smaller = draft.pictures.filter((each) => originalOf(each));
  useDrop((list) => void attach(list));
  const interrupt = (): void => {
    Promise.resolve()
      .then(() => liveRpc().request("turn/interrupt", { threadId: id, turnId: turn?.id }))
      .catch(sayError);
  };
  if (!scopes.value.has("drive")) {
    return <p class="blocked">This device may watch{scopes.value.has("approve") && " and approve"}, but not write.</p>;
  }
  return (
    <div class="composer">
      <Outbox list={mine} id={id} />
      {draft.pictures.length > 0 && (
        <ul class="pictures" aria-label="Pictures to send">
          {draft.pictures.map((each, index) => (
            <li key={index}>
              <img src={each} alt={`Picture ${index + 1}`} />
              <IconButton
                icon="cross"
                label={`Remove picture ${index + 1}`}
                onClick={() =>
                  change({ ...draft, pictures: draft.pictures.filter((_, other) => other !== index) })
                }
              />
            </li>
          ))}
        </ul>
      )}
      {smaller.length > 0 && (
        <p class="scaled quiet">
          <span>{smaller.length > 1 ? `${smaller.length} photographs are` : "The photograph is"} scaled down.</span>
          <button
            type="button"
            class="button small"
            onClick={() => void attach(smaller.map((each) => originalOf(each)!), true, smaller)}
          >
            Full size
          </button>
        </p>
      )}
      {attached.length > 0 && <Uploads list={attached} />}
      {running && ready && (
        <div class="mode">
          <Segmented label="What sending does" value={mode} options={MODES} onChange={setMode} />
          <span class="quiet">
            {mode === "steer" ? "joins the running turn" : "runs when this turn is done"}
          </span>
        </div>
      )}
      <form
        class="composer-row"
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <IconButton icon="clip" label="Attach pictures and files" onClick={() => files.current!.click()} />
        <input
          ref={files}
          type="file"
          multiple
          hidden
          onChange={(event) => {
            void attach(event.currentTarget.files ?? []);
            event.currentTarget.value = "";
          }}
        />
        <IconButton icon="camera" label="Take a photograph" class="only-touch" onClick={() => camera.current!.click()} />
        <input
          ref={camera}
          type="file"
          accept="image/*"
          capture="environment"
          hidden
          onChange={(event) => {
            void attach(event.currentTarget.files ?? []);
            event.currentTarget.value = "";
          }}
        />
        <label class="visually-hidden" for="message">
          Message
        </label>
        <textarea
          id="message"
          ref={box}
          rows={1}
          dir="auto"
          placeholder={running ? (mode === "steer" ? "Steer the turn" : "Queue a message") : "Message"}
          value={draft.text}
          onInput={(event) => change({ ...draft, text: event.currentTarget.value })}
          onPaste={(event) => {
            const pasted = [...(event.clipboardData?.files ?? [])];
            if (pasted.length) {
              event.preventDefault();
              void attach(pasted);
            }
          }}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.isComposing) return;
            // A keyboard of glass has no second key for a new line.
            const desk = matchMedia("(hover: hover) and (pointer: fine)").matches;
            if (event.ctrlKey || event.metaKey || (desk && !event.shiftKey)) {
              event.preventDefault();
              submit();
            }
          }}
        />
        {running && (
          <button
            type="button"
            class="icon-button interrupt"
            aria-label="Interrupt the turn"
            title={cantAct.value || "Interrupt the turn"}
            disabled={!!cantAct.value || !turn}
            onClick={interrupt}
          >
            <Icon name="stop" size={22} />
          </button>
        )}
        {(ready || !running) && (
          <button
            type="submit"
            class="icon-button send"
            disabled={!ready}
            aria-label={!running ? "Send" : mode === "steer" ? "Steer" : "Queue"}
            title={phase.value === "live" ? undefined : "It is sent when there is a connection"}
          >
            <Icon name="send" size={22} />
          </button>
        )}
      </form>
    </div>
  );
}

/** Files that are dropped anywhere on the page go with the message. */
function useDrop(take: (files: FileList) => void): void {
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const over = (event: DragEvent): void => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    };
    const drop = (event: DragEvent): void => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      latest.current(event.dataTransfer.files);
    };
    addEventListener("dragover", over);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("drop", drop);
    };
  }, []);
}

function grow(box: HTMLTextAreaElement | null): void {
  if (!box) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function Outbox({ list, id }: { list: Outgoing[]; id: string }): JSX.Element | null {
  const queue = queues.value.get(id);
  const own = new Set(list.map((each) => each.id));
  const others = (queue?.turns ?? []).filter((each) => !own.has(each.clientUserMessageId ?? ""));
  if (!list.length && !others.length && !queue?.held) return null;
  const start = (): void => {
    Promise.resolve()
      .then(() => liveRpc().request("mux/queue/start", { threadId: id }))
      .catch(sayError);
  };
  const remove = (turn: number): void => {
    Promise.resolve()
      .then(() => liveRpc().request("mux/queue/remove", { id: turn }))
      .catch(sayError);
  };
  return (
    <div class="outbox">
      {queue?.held && (
        <p class="held">
          <span>The queue is held, as the turn before {HELD[queue.held] ?? "ended otherwise"}.</span>
          <button type="button" class="button small" disabled={!!cantAct.value} onClick={start}>
            Go on
          </button>
        </p>
      )}
      <ul>
        {others.map((each) => (
          <li key={each.id} class="waiting">
            <span class="outbox-text">
              <Strange text={each.text} />
            </span>
            <span class="quiet">
              {each.name}, number {each.place}
            </span>
            <button type="button" class="button small" disabled={!!cantAct.value} onClick={() => remove(each.id)}>
              Take back
            </button>
          </li>
        ))}
        {list.map((each) => (
          <li key={each.id} class={each.state}>
            <span class="outbox-text">
              <Strange text={each.text || `${each.pictures} pictures`} />
            </span>
            <span class={each.state === "failed" ? "bad" : "quiet"} role="status">
              {stateOf(each, phase.value === "live")}
            </span>
            {(each.state === "failed" || each.state === "asks") && (
              <button type="button" class="button small" onClick={() => again(each.id)}>
                {each.state === "failed" ? "Again" : "Send it"}
              </button>
            )}
            {each.state !== "sending" && (
              <button type="button" class="button small" onClick={() => withdraw(each).catch(sayError)}>
                {each.state === "queued" ? "Take back" : "Discard"}
              </button>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}

const HELD: Record<string, string> = {
  interrupted: "was interrupted",
  failed: "failed",
  appServerEnded: "ended with its app-server",
};
