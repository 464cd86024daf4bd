// The turns of a thread that are shown: their items, and how each turn stands or ended.

import type { JSX } from "preact";
import type { TurnState } from "../journal/thread.ts";
import { filesIn, looking, madeBy } from "../threads/files.ts";
import type { FollowedThread } from "../threads/follow.ts";
import { authors } from "./authors.ts";
import { ago, lasted } from "./format.ts";
import { ItemView } from "./items.tsx";
import { Icon, now, second, Strange } from "./parts.tsx";
import type { Range } from "./window.ts";

export function Turns(props: {
  thread: FollowedThread;
  version: number;
  asks: boolean;
  range: Range;
}): JSX.Element {
  const { thread, version, asks, range } = props;
  const { state } = thread;
  const who = authors(thread, version);
  const parts: JSX.Element[] = [];
  let turn: string | null = null;
  const close = (): void => {
    const found = turn === null ? undefined : state.turns.get(turn);
    if (found) parts.push(<TurnFoot key={`end/${found.id}`} threadId={state.id} turn={found} version={found.version} asks={asks} />);
  };
  for (const id of state.order.slice(range.from, range.to)) {
    const item = state.items.get(id)!;
    if (item.turnId !== turn) {
      close();
      turn = item.turnId;
    }
    const said = item.item.type === "userMessage" ? who(item) : "";
    parts.push(<ItemView key={id} thread={thread} id={id} said={said} />);
  }
  const next = state.items.get(state.order[range.to] ?? "");
  if (next) {
    if (next.turnId !== turn) close();
    return <>{parts}</>;
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

function TurnFoot(props: {
  threadId: string;
  turn: TurnState;
  version: number;
  asks: boolean;
}): JSX.Element {
  const { threadId, turn, asks } = props;
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
      {!running && <Made threadId={threadId} turnId={turn.id} />}
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

/** The files that a turn made: one is shown, several are listed. */
function Made({ threadId, turnId }: { threadId: string; turnId: string }): JSX.Element | null {
  const made = madeBy(filesIn(threadId), turnId);
  if (!made.length) return null;
  const [first] = made;
  const look = (): void => {
    looking.value = made.length === 1 ? { threadId, path: first!.path } : { threadId, turnId };
  };
  return (
    <button type="button" class="button small made-files" onClick={look}>
      <Icon name="file" size={16} />
      {made.length === 1 ? <><Strange text={first!.name} /> was made</> : `${made.length} files made`}
    </button>
  );
}
