// One thread: its conversation, what it asks, and what one says to it.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { threads } from "../connection/runtime.ts";
import type { Request } from "../approvals/requests.ts";
import type { ThreadState, TurnState } from "../journal/thread.ts";
import { back } from "../route.ts";
import { inbox, phase, requests, settled } from "../state.ts";
import type { FollowedThread } from "../threads/follow.ts";
import { titleOf } from "../threads/inbox.ts";
import { ApprovalCard, Settled } from "./approval.tsx";
import { Composer } from "./composer.tsx";
import { ago, lasted, shortPath } from "./format.ts";
import { ItemView } from "./items.tsx";
import { Menu } from "./menu.tsx";
import { type FileView, fileView, fileViewOf } from "./changes.ts";
import { authors } from "./authors.ts";
import { Icon, IconButton, now, second, Strange } from "./parts.tsx";
import { Banner, connectionWords, hostName } from "./status.tsx";

/** So near to the end, one is at the end. */
const NEAR = 60;

/** So near to the beginning, what came before is loaded. */
const EARLY = 600;

export function ThreadView({ id }: { id: string }): JSX.Element {
  const [thread, setThread] = useState<FollowedThread>(() => threads.get(id));
  const [menu, setMenu] = useState(false);
  useEffect(() => {
    setThread(threads.open(id, Date.now()));
  }, [id, phase.value === "live"]);
  const row = inbox.value.threads.get(id);
  const version = thread.version.value;
  const meta = thread.state.thread;
  const title = titleOf({
    title: meta?.name ?? row?.title ?? "",
    preview: meta?.preview || row?.preview || "",
  });
  const directory = meta?.cwd ?? row?.directory ?? "";
  const asks = [...requests.value.values()].filter(
    (each) => each.threadId === id || each.rootThreadId === id,
  );
  return (
    <section class="thread" aria-label="Thread">
      <header class="bar">
        <IconButton icon="back" label="Back to the inbox" class="only-narrow" onClick={back} />
        <div class="bar-title">
          <h1>
            <Strange text={title} />
          </h1>
          <p class="bar-sub">
            <Strange text={hostName()} />
            <span class="sep">·</span>
            <span title={directory}>
              <Strange text={shortPath(directory)} />
            </span>
            <span class="sep">·</span>
            <span class={`state state-${phase.value}`}>
              <span class="dot" aria-hidden="true" />
              {connectionWords()}
            </span>
          </p>
        </div>
        <IconButton icon="more" label="Menu of this thread" onClick={() => setMenu(true)} />
      </header>
      <div class="only-narrow">
        <Banner />
      </div>
      <Timeline thread={thread} version={version} asks={asks.length > 0} />
      <div class="dock">
        {asks.map((each) => (
          <ApprovalCard key={each.id} request={each} files={filesOf(each, thread.state)} />
        ))}
        {!asks.length && [...settled.value].slice(-1).map(([key, text]) => (
          <Settled key={key} text={text} />
        ))}
        <Composer thread={thread} id={id} asks={asks.length > 0} />
      </div>
      {menu && <Menu thread={thread} id={id} onClose={() => setMenu(false)} />}
    </section>
  );
}

/** The files of a request. Very long changes the broker doesn't repeat: the thread has them. */
function filesOf(request: Request, state: ThreadState): FileView[] {
  if (request.files.length) return request.files.map(fileViewOf);
  const item = request.itemId === null ? undefined : state.items.get(request.itemId)?.item;
  return item?.type === "fileChange" ? item.changes.map(fileView) : [];
}

function Timeline(props: { thread: FollowedThread; version: number; asks: boolean }): JSX.Element {
  const { thread, version, asks } = props;
  const { state } = thread;
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  const seen = useRef(state.order.length);
  const [fresh, setFresh] = useState(0);
  const before = useRef<{ first: string | undefined; height: number }>({ first: undefined, height: 0 });

  const toEnd = (): void => {
    const box = scroller.current;
    if (box) box.scrollTop = box.scrollHeight;
    pinned.current = true;
    seen.current = state.order.length;
    setFresh(0);
  };
  const onScroll = (): void => {
    const box = scroller.current;
    if (!box) return; // the view has gone before its last scrolling was told
    pinned.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    if (pinned.current) {
      seen.current = state.order.length;
      if (fresh) setFresh(0);
    }
    if (box.scrollTop < EARLY) void threads.older(thread);
  };
  useLayoutEffect(toEnd, [state]);
  // What is put before what one reads mustn't move it.
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const first = state.order[0];
    const { first: was, height } = before.current;
    if (was !== undefined && first !== was && !pinned.current) {
      box.scrollTop += box.scrollHeight - height;
    }
    before.current = { first, height: box.scrollHeight };
    if (pinned.current) toEnd();
    else setFresh(Math.max(0, state.order.length - seen.current));
  }, [version]);
  useEffect(() => {
    const watch = new ResizeObserver(() => {
      if (pinned.current && scroller.current) {
        scroller.current.scrollTop = scroller.current.scrollHeight;
      }
    });
    watch.observe(content.current!);
    watch.observe(scroller.current!);
    return () => watch.disconnect();
  }, []);

  return (
    <div class="timeline-frame">
      <div
        class="timeline"
        ref={scroller}
        onScroll={onScroll}
        tabIndex={0}
        role="region"
        aria-label="Conversation"
      >
        <div class="timeline-content" ref={content}>
          <Start thread={thread} />
          <Turns thread={thread} version={version} asks={asks} />
        </div>
      </div>
      {fresh > 0 && (
        <button type="button" class="fresh" onClick={toEnd}>
          {fresh} new <Icon name="down" size={16} />
        </button>
      )}
    </div>
  );
}

function Start({ thread }: { thread: FollowedThread }): JSX.Element | null {
  const state = thread.read();
  if (thread.keptAt.value) {
    return (
      <p class="quiet centered" role="status">
        As it was {ago(thread.keptAt.value, now.value)}
        {phase.value !== "offline" && ". Loading …"}
      </p>
    );
  }
  if (thread.trouble.value) {
    return (
      <p class="trouble centered" role="alert">
        {thread.trouble.value}
      </p>
    );
  }
  if (thread.loading.value) {
    return (
      <p class="quiet centered" role="status">
        Loading …
      </p>
    );
  }
  if (state.older) {
    return (
      <button type="button" class="button small centered" onClick={() => void threads.older(thread)}>
        Older
      </button>
    );
  }
  if (!state.order.length) return <p class="quiet centered">Nothing was said here yet.</p>;
  return <p class="quiet centered begun">The beginning</p>;
}

function Turns(props: { thread: FollowedThread; version: number; asks: boolean }): JSX.Element {
  const { thread, version, asks } = props;
  const { state } = thread;
  const who = authors(thread, version);
  const parts: JSX.Element[] = [];
  let turn: string | null = null;
  const close = (): void => {
    const found = turn === null ? undefined : state.turns.get(turn);
    if (found) parts.push(<TurnFoot key={`end/${found.id}`} turn={found} version={found.version} asks={asks} />);
  };
  for (const id of state.order) {
    const item = state.items.get(id)!;
    if (item.turnId !== turn) {
      close();
      turn = item.turnId;
    }
    const said = item.item.type === "userMessage" ? who(item) : "";
    parts.push(<ItemView key={id} thread={thread} id={id} said={said} />);
  }
  for (const each of state.notes) {
    if (each.turnId && state.turns.get(each.turnId)?.status !== "inProgress") continue;
    parts.push(
      <p key={each.key} class={`note ${each.kind}`} role={each.kind === "error" ? "alert" : undefined}>
        <Icon name="alert" size={16} />
        <span>
          <Strange text={each.text} />
        </span>
      </p>,
    );
  }
  close();
  return <>{parts}</>;
}

const STEPS = { completed: "check", inProgress: "right", pending: "" } as const;

function TurnFoot({ turn, asks }: { turn: TurnState; version: number; asks: boolean }): JSX.Element {
  const running = turn.status === "inProgress";
  return (
    <footer class={`turn-foot ${turn.status}`}>
      {turn.plan.length > 0 && (
        <ol class="plan" aria-label="Plan">
          {turn.plan.map((each, index) => (
            <li key={index} class={each.status}>
              <span class="plan-mark">
                {STEPS[each.status] && <Icon name={STEPS[each.status]} size={14} />}
              </span>
              <Strange text={each.step} />
              <span class="visually-hidden">
                {each.status === "completed" ? ", done" : each.status === "inProgress" ? ", now" : ""}
              </span>
            </li>
          ))}
        </ol>
      )}
      {running ? <Working turn={turn} asks={asks} /> : <Ended turn={turn} />}
    </footer>
  );
}

function Working({ turn, asks }: { turn: TurnState; asks: boolean }): JSX.Element {
  const began = turn.startedAt === null ? null : turn.startedAt * 1000;
  return (
    <p class="working">
      {asks ? <Icon name="hand" size={16} /> : <span class="spinner" aria-hidden="true" />}
      {asks ? "Waits for an answer" : "Working"}
      {began !== null && <span class="quiet"> {lasted(second.value - began)}</span>}
    </p>
  );
}

function Ended({ turn }: { turn: TurnState }): JSX.Element | null {
  const took = turn.durationMs === null ? "" : lasted(turn.durationMs);
  if (turn.status === "failed") {
    return (
      <div class="note error" role="alert">
        <Icon name="alert" size={16} />
        <span>
          <strong>The turn failed.</strong>{" "}
          <Strange text={turn.error?.message ?? ""} />
          {turn.error?.additionalDetails && (
            <details>
              <summary>Details</summary>
              <Strange text={turn.error.additionalDetails} />
            </details>
          )}
          <span class="quiet"> Send a message to go on.</span>
        </span>
      </div>
    );
  }
  if (turn.status === "interrupted") return <p class="turn-time">Interrupted{took && ` after ${took}`}</p>;
  const ended = turn.startedAt !== null && turn.durationMs !== null
    ? turn.startedAt * 1000 + turn.durationMs
    : null;
  if (ended === null && !took) return null;
  return (
    <p class="turn-time">
      {ended !== null && ago(ended, now.value)}
      {took && turn.durationMs! >= 1000 && ` · took ${took}`}
    </p>
  );
}
