// A thread as it is shown, made of the messages about it: a fold. `apply` takes one message in,
// `takeSnapshot` what a resume and its pages say. No clock, no network, no document.

import type {
  Cursor,
  Message,
  Thread,
  ThreadItem,
  ThreadItemEntry,
  ThreadTokenUsage,
  Turn,
  TurnError,
  TurnPlanStep,
} from "../wire.ts";

/** One item, and what it streams while it runs. */
export interface Item {
  id: string;
  turnId: string;
  item: ThreadItem;
  running: boolean;
  /** What came by deltas; the item's own fields take its place when it is complete. */
  text: string;
  output: string;
  parts: string[];
  startedAt: number | null;
  completedAt: number | null;
  /** Grows with each change, so that a view knows. */
  version: number;
}

export interface TurnState {
  id: string;
  status: Turn["status"];
  error: TurnError | null;
  startedAt: number | null;
  durationMs: number | null;
  plan: TurnPlanStep[];
  diff: string;
  /** Grows with each change. */
  version: number;
}

/** Who decided an approval, as it stands in the journal. */
export interface Decision {
  id: number | string;
  itemId: string | null;
  turnId: string | null;
  decision: string;
  by: { client: number | null; name: string; principal: string } | null;
  how: string;
}

export interface ThreadState {
  id: string;
  thread: Thread | null;
  status: string;
  model: string;
  effort: string | null;
  items: Map<string, Item>;
  order: string[];
  turns: Map<string, TurnState>;
  decisions: Map<string, Decision>;
  usage: ThreadTokenUsage | null;
  notes: Note[];
  closed: boolean;
  /** Up to here everything of this thread has been dealt with; null before the first snapshot. */
  cursor: Cursor | null;
  /** Where older items go on, if there are any; empty: from the end on, past those that are here. */
  older: string | null;
  /** Grows when items come, go or change their order, and with anything but an item's inside. */
  version: number;
}

/** Something that the app-server said of the thread besides its items. */
export interface Note {
  key: string;
  kind: "error" | "warning";
  text: string;
  details: string;
  turnId: string | null;
}

/** Notes kept of one thread: more are the same trouble again. */
const NOTES = 20;

export function emptyThread(id: string): ThreadState {
  return {
    id,
    thread: null,
    status: "notLoaded",
    model: "",
    effort: null,
    items: new Map(),
    order: [],
    turns: new Map(),
    decisions: new Map(),
    usage: null,
    notes: [],
    closed: false,
    cursor: null,
    older: null,
    version: 0,
  };
}

/** Take one message in. Returns the item that changed, or true for the thread, or false. */
export function apply(state: ThreadState, message: Message): Item | boolean {
  const { method, params } = message;
  if (!method || !params || threadOf(message) !== state.id) return false;
  const stream = STREAMS[method];
  if (stream) return streamed(state, params, stream);
  const changed = CHANGES[method]?.(state, params) ?? false;
  if (changed) state.version++;
  return changed;
}

/** The id of the thread that a message is about, if any. */
export function threadOf(message: Message): string | undefined {
  return message.params?.threadId ?? message.params?.thread?.id;
}

type Change = (state: ThreadState, params: any) => boolean;

const CHANGES: Record<string, Change> = {
  "item/started": (state, params) => {
    const item = place(state, params.turnId, params.item);
    Object.assign(item, { running: true, text: "", output: "", parts: [] });
    item.startedAt = params.startedAtMs ?? item.startedAt;
    return true;
  },
  "item/completed": (state, params) => {
    const item = place(state, params.turnId, params.item);
    // The whole has come: what was streamed is in it.
    Object.assign(item, { running: false, text: "", output: "", parts: [] });
    item.completedAt = params.completedAtMs ?? item.completedAt;
    return true;
  },
  "item/fileChange/patchUpdated": (state, params) => {
    const found = state.items.get(params.itemId);
    if (found?.item.type !== "fileChange" || !params.changes) return false;
    found.item = { ...found.item, changes: params.changes };
    found.version++;
    return true;
  },
  "turn/started": (state, params) => turn(state, params.turn),
  "turn/completed": (state, params) => {
    // A command in the background goes on when its turn is done, but not when that was broken off.
    for (const item of params.turn.status === "completed" ? [] : state.items.values()) {
      if (item.turnId === params.turn.id && item.running) stop(item);
    }
    return turn(state, params.turn);
  },
  "turn/plan/updated": (state, params) => {
    const found = turnOf(state, params.turnId);
    found.plan = params.plan;
    found.version++;
    return true;
  },
  "turn/diff/updated": (state, params) => {
    const found = turnOf(state, params.turnId);
    found.diff = params.diff;
    found.version++;
    return true;
  },
  "thread/status/changed": (state, params) => {
    state.status = params.status.type;
    if (state.status !== "notLoaded") state.closed = false;
    return true;
  },
  "thread/name/updated": (state, params) => rename(state, params.threadName ?? params.name ?? null),
  "thread/tokenUsage/updated": (state, params) => {
    state.usage = params.tokenUsage;
    return true;
  },
  "thread/settings/updated": (state, params) => {
    const settings = params.threadSettings ?? params.settings ?? params;
    if (typeof settings.model === "string") state.model = settings.model;
    if ("effort" in settings) state.effort = settings.effort;
    return true;
  },
  "thread/closed": (state) => {
    state.closed = true;
    return true;
  },
  "thread/reverted": (state) => {
    // What is left nobody says: a snapshot does, which whoever holds this takes.
    state.cursor = null;
    return true;
  },
  "mux/approvals/decided": (state, params) => {
    const key = params.itemId ?? `request/${params.id}`;
    state.decisions.set(key, params as Decision);
    const item = state.items.get(params.itemId);
    if (item) item.version++;
    return true;
  },
  error: (state, params) =>
    note(state, {
      key: `error/${params.turnId}/${params.error.message}`,
      kind: params.willRetry ? "warning" : "error",
      text: params.error.message,
      details: params.error.additionalDetails ?? "",
      turnId: params.turnId ?? null,
    }),
  warning: (state, params) =>
    note(state, {
      key: `warning/${params.message}`,
      kind: "warning",
      text: params.message,
      details: "",
      turnId: null,
    }),
};

type Stream = (item: Item, params: any) => void;

const STREAMS: Record<string, Stream> = {
  "item/agentMessage/delta": (item, params) => void (item.text += params.delta),
  "item/plan/delta": (item, params) => void (item.text += params.delta),
  "item/commandExecution/outputDelta": (item, params) => void (item.output += params.delta),
  "item/fileChange/outputDelta": (item, params) => void (item.output += params.delta),
  "item/reasoning/summaryTextDelta": (item, params) => part(item, params.summaryIndex, params.delta),
  "item/reasoning/textDelta": (item, params) => void (item.text += params.delta),
  "item/mcpToolCall/progress": (item, params) => void (item.output += `${params.message}\n`),
};

function streamed(state: ThreadState, params: any, stream: Stream): Item | false {
  const item = state.items.get(params.itemId);
  // Of an item that is over, the whole has come already.
  if (!item?.running) return false;
  stream(item, params);
  item.version++;
  return item;
}

function part(item: Item, index: number, delta: string): void {
  while (item.parts.length <= index) item.parts.push("");
  item.parts[index] += delta;
}

function place(state: ThreadState, turnId: string, item: ThreadItem): Item {
  const found = state.items.get(item.id);
  if (found) {
    found.item = item;
    found.version++;
    return found;
  }
  const made = newItem(turnId, item);
  state.items.set(item.id, made);
  state.order.push(item.id);
  turnOf(state, turnId);
  return made;
}

function newItem(turnId: string, item: ThreadItem): Item {
  return {
    id: item.id,
    turnId,
    item,
    running: false,
    text: "",
    output: "",
    parts: [],
    startedAt: null,
    completedAt: null,
    version: 0,
  };
}

function stop(item: Item): void {
  item.running = false;
  item.version++;
}

function turnOf(state: ThreadState, id: string): TurnState {
  let found = state.turns.get(id);
  if (!found) {
    found = {
      id,
      status: "inProgress",
      error: null,
      startedAt: null,
      durationMs: null,
      plan: [],
      diff: "",
      version: 0,
    };
    state.turns.set(id, found);
  }
  return found;
}

function turn(state: ThreadState, said: Turn): boolean {
  const found = turnOf(state, said.id);
  found.status = said.status;
  found.error = said.error;
  found.startedAt = said.startedAt ?? found.startedAt;
  found.durationMs = said.durationMs ?? found.durationMs;
  found.version++;
  return true;
}

function rename(state: ThreadState, name: string | null): boolean {
  if (state.thread) state.thread = { ...state.thread, name };
  return true;
}

function note(state: ThreadState, said: Note): boolean {
  if (state.notes.some((each) => each.key === said.key)) return false;
  state.notes = [...state.notes, said].slice(-NOTES);
  return true;
}

// -- snapshots -------------------------------------------------------------------------------------

/** What the answer to a resume says, apart from its pages. */
export interface Joined {
  thread: Thread;
  model: string;
  effort: string | null;
}

/** Begin with the answer to a resume. What comes after it is heard before its pages are read. */
export function join(joined: Joined): ThreadState {
  const state = emptyThread(joined.thread.id);
  state.thread = joined.thread;
  state.status = joined.thread.status.type;
  state.model = joined.model;
  state.effort = joined.effort;
  return state;
}

/** The first pages, of items (newest first) and of turns (newest first). */
export interface Pages {
  items: ThreadItemEntry[];
  turns: Turn[];
  older: string | null;
}

/** Put the first pages in. What was heard live meanwhile is newer, and stays. */
export function takePages(state: ThreadState, pages: Pages): void {
  const live = state.turns;
  state.turns = new Map();
  for (const said of [...pages.turns].reverse()) turn(state, said);
  for (const [id, heard] of live) {
    const paged = state.turns.get(id);
    if (!paged || heard.version > 0) state.turns.set(id, heard);
  }
  takeOlder(state, pages.items, pages.older);
}

/** Put a page of older items (newest first) before those that are known. */
export function takeOlder(state: ThreadState, page: ThreadItemEntry[], older: string | null): void {
  const before: string[] = [];
  for (const entry of page) {
    if (state.items.has(entry.item.id)) continue;
    const item = newItem(entry.turnId, entry.item);
    item.startedAt = entry.startedAtMs;
    item.completedAt = entry.completedAtMs;
    state.items.set(item.id, item);
    before.push(item.id);
    if (!state.turns.has(entry.turnId)) turnOf(state, entry.turnId).status = "completed";
  }
  before.reverse();
  state.order = [...before, ...state.order];
  state.older = older;
  state.version++;
}

/** Let go of the oldest items. They can be had again, as any page of older ones. */
export function forget(state: ThreadState, number: number): void {
  if (!number) return;
  for (const id of state.order.slice(0, number)) state.items.delete(id);
  state.order = state.order.slice(number);
  state.older = "";
  state.version++;
}
