// What one can do with a thread besides speaking to it.

import { useEffect, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { currentEpoch, liveRpc, rpc } from "../connection/runtime.ts";
import { go, threadPath } from "../route.ts";
import { cantAct, inbox, say, sayError, scopes } from "../state.ts";
import { looking } from "../threads/files.ts";
import type { FollowedThread } from "../threads/follow.ts";
import type { Model, RateLimitSnapshot, ThreadTokenUsage } from "../wire.ts";
import { Digest } from "./digest.tsx";
import { lasted, tokens } from "./format.ts";
import { second, Sheet } from "./parts.tsx";

/** Model and effort for the next turn of a thread, until it has begun. */
const chosen = signal<ReadonlyMap<string, Record<string, string>>>(new Map());

/** The options that the next message takes with it. */
export function nextTurn(thread: string): Record<string, string> {
  const found = chosen.value.get(thread) ?? {};
  if (chosen.value.has(thread)) {
    const rest = new Map(chosen.value);
    rest.delete(thread);
    chosen.value = rest;
  }
  return found;
}

function choose(thread: string, what: Record<string, string>): void {
  chosen.value = new Map(chosen.value).set(thread, { ...chosen.value.get(thread), ...what });
}

type Page = "menu" | "rename" | "digest" | "delete";

export function Menu(props: { thread: FollowedThread; id: string; onClose: () => void }): JSX.Element {
  const { thread, id, onClose } = props;
  void thread.version.value;
  const [page, setPage] = useState<Page>("menu");
  const drive = scopes.value.has("drive");
  const row = inbox.value.threads.get(id);
  const act = (method: string, params: object, done: string, then?: (answer: any) => void): void => {
    Promise.resolve()
      .then(() => liveRpc().request(method, { threadId: id, ...params }))
      .then((answer) => {
        say(done);
        then?.(answer);
        onClose();
      })
      .catch(sayError);
  };
  if (page === "rename") return <Rename thread={thread} id={id} onClose={onClose} />;
  if (page === "digest") return <Digest id={id} epoch={currentEpoch()} onClose={onClose} />;
  const off = !drive || !!cantAct.value;
  return (
    <Sheet title="This thread" onClose={onClose}>
      <ul class="menu">
        <li>
          <button type="button" onClick={() => (onClose(), go(`${threadPath(id)}/review`))}>
            Review its changes
          </button>
        </li>
        <li>
          <button type="button" onClick={() => (onClose(), (looking.value = { threadId: id, turnId: null }))}>
            Its files
          </button>
        </li>
        <li>
          <button type="button" onClick={() => setPage("digest")}>
            What happened since I looked
          </button>
        </li>
        <li>
          <button type="button" disabled={off} onClick={() => setPage("rename")}>
            Rename
          </button>
        </li>
        <li>
          <button
            type="button"
            disabled={off}
            onClick={() =>
              act("thread/fork", {}, "A copy of the thread was made.", (answer) =>
                go(threadPath(answer.thread.id)),
              )
            }
          >
            Fork into a new thread
          </button>
        </li>
        <li>
          <button type="button" disabled={off} onClick={() => act("thread/compact/start", {}, "The context is being compacted.")}>
            Compact the context
          </button>
        </li>
        <li>
          <button
            type="button"
            onClick={() => {
              navigator.clipboard
                ?.writeText(`${location.origin}${threadPath(id)}`)
                .then(() => say("The link was copied."), () => say("The clipboard can’t be used here.", "error"));
              onClose();
            }}
          >
            Copy a link
          </button>
        </li>
        <li>
          {row?.archived ? (
            <button type="button" disabled={off} onClick={() => act("thread/unarchive", {}, "It is back among the threads.")}>
              Take out of the archive
            </button>
          ) : (
            <button type="button" disabled={off} onClick={() => act("thread/archive", {}, "The thread was archived.", () => go("/"))}>
              Archive
            </button>
          )}
        </li>
      </ul>
      {drive && <NextTurn thread={thread} id={id} />}
      <Usage thread={thread} usage={thread.state.usage ?? row?.usage ?? null} />
    </Sheet>
  );
}

function Rename(props: { thread: FollowedThread; id: string; onClose: () => void }): JSX.Element {
  const [name, setName] = useState(props.thread.state.thread?.name ?? "");
  const submit = (event: Event): void => {
    event.preventDefault();
    Promise.resolve()
      .then(() => liveRpc().request("thread/name/set", { threadId: props.id, name: name.trim() }))
      .then(props.onClose)
      .catch(sayError);
  };
  return (
    <Sheet title="Rename" onClose={props.onClose}>
      <form onSubmit={submit}>
        <label class="field">
          <span>Title</span>
          <input
            type="text"
            dir="auto"
            value={name}
            autoFocus
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="button primary wide" disabled={!name.trim()}>
          Rename
        </button>
      </form>
    </Sheet>
  );
}

export function useModels(): Model[] {
  const [models, setModels] = useState<Model[]>([]);
  useEffect(() => {
    rpc()
      ?.request("model/list", { limit: 50 })
      .then((answer) => setModels(answer.data.filter((each: Model) => !each.hidden)))
      .catch(() => undefined);
  }, []);
  return models;
}

function NextTurn({ thread, id }: { thread: FollowedThread; id: string }): JSX.Element {
  const models = useModels();
  const own = chosen.value.get(id) ?? {};
  const current = own.model ?? thread.state.model;
  const model = models.find((each) => each.model === current);
  const efforts = model?.supportedReasoningEfforts ?? [];
  return (
    <section class="menu-part">
      <h3>Next turn</h3>
      <label class="field">
        <span>Model</span>
        <select value={current} onChange={(event) => choose(id, { model: event.currentTarget.value })}>
          {!model && <option value={current}>{current || "as it is"}</option>}
          {models.map((each) => (
            <option key={each.id} value={each.model}>
              {each.displayName}
            </option>
          ))}
        </select>
      </label>
      {efforts.length > 0 && (
        <label class="field">
          <span>Effort</span>
          <select
            value={own.effort ?? thread.state.effort ?? model?.defaultReasoningEffort ?? ""}
            onChange={(event) => choose(id, { effort: event.currentTarget.value })}
          >
            {efforts.map((each) => (
              <option key={each.reasoningEffort} value={each.reasoningEffort}>
                {each.reasoningEffort}
              </option>
            ))}
          </select>
        </label>
      )}
    </section>
  );
}

function Usage({ usage }: { thread: FollowedThread; usage: ThreadTokenUsage | null }): JSX.Element | null {
  const limits = Object.values(inbox.value.limits);
  if (!usage && !limits.length) return null;
  const window = usage?.modelContextWindow;
  const left = usage && window ? Math.max(0, 1 - usage.last.totalTokens / window) : null;
  return (
    <section class="menu-part">
      <h3>Usage</h3>
      {usage && (
        <dl class="facts">
          <div>
            <dt>tokens</dt>
            <dd>
              {tokens(usage.total.totalTokens)} in all, {tokens(usage.total.outputTokens)} of them written
            </dd>
          </div>
          {left !== null && (
            <div>
              <dt>context</dt>
              <dd>
                {Math.round(left * 100)} % left of {tokens(window!)}
              </dd>
            </div>
          )}
        </dl>
      )}
      {limits.map((each, index) => (
        <Limit key={index} limit={each} />
      ))}
    </section>
  );
}

function Limit({ limit }: { limit: RateLimitSnapshot }): JSX.Element {
  const windows = [limit.primary, limit.secondary].filter((each) => each !== null);
  return (
    <>
      {windows.map((each, index) => {
        const name = each.windowDurationMins ? lasted(each.windowDurationMins * 60_000) : "limit";
        return (
          <p key={index} class="meter-row">
            <span>{name}</span>
            <meter min={0} max={100} high={80} value={each.usedPercent} aria-label={`Used of ${name}`} />
            <span>
              {Math.round(each.usedPercent)} % used
              {each.resetsAt && <span class="quiet">, new in {lasted(each.resetsAt * 1000 - second.value)}</span>}
            </span>
          </p>
        );
      })}
    </>
  );
}
