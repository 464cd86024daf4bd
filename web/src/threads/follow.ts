// Threads that are open, or were a moment ago: joined, kept up to date, let go.

import { type Signal, signal } from "@preact/signals";
import { Gone, type Rpc } from "../connection/rpc.ts";
import {
  apply,
  emptyThread,
  forget,
  takeOlder,
  type Item,
  join,
  takePages,
  threadOf,
  type ThreadState,
} from "../journal/thread.ts";
import { split } from "../journal/split.ts";
import { keepTexts, keptTexts } from "../storage/store.ts";
import type { Cursor, Message, ThreadItemEntry, ThreadResumeResponse, Turn } from "../wire.ts";

/** Items of one page: some screenfuls on a phone, and one quick answer. */
const PAGE = 50;

/** Turns asked for with it: times, outcomes, errors. */
const TURNS = 20;

/** Threads that stay followed after one has left them: going back is at once. */
const FOLLOWED_MOST = 3;

/** Items kept on the device for the next start, before there is a connection. */
const KEPT_ITEMS = 40;

/** A frame that takes longer than this leaves the rest to the next one. */
const FRAME_MS = 12;

/**
 * What a frame should take with all that is drawn of it, so that a tap is heard at once. Tables and code take
 * up to twice as long as a text of the same length: then it is still less than 50 ms.
 */
const DRAWN_MS = 20;

/** Characters of new text that a frame takes in, at least and at most, as it turns out to be slow. */
const LEAST_TEXT = 500;
const MOST_TEXT = 20_000;

/** While nobody looks, what comes is taken in so often. */
const HIDDEN_MS = 100;

/** Output that streams is drawn with each frame up to this length, */
const SHORT_OUTPUT = 6_000;

/** and then so often: an opened one is drawn as a whole. */
const LONG_OUTPUT_MS = 70;

export class FollowedThread {
  state: ThreadState;
  /** Changes with anything but an item's inside. */
  version = signal(0);
  /** When what is shown was true, if it was only kept; 0 if it is what was heard. */
  keptAt = signal(0);
  loading = signal(false);
  trouble = signal("");
  lastOpened = 0;
  /** Whether whoever looks at it is at its end. */
  following = true;
  /** What takes in messages while a snapshot is being read; the old state is shown meanwhile. */
  next: ThreadState | null = null;
  followed = false;
  joining = false;
  #items = new Map<string, Signal<number>>();

  constructor(id: string) {
    this.state = emptyThread(id);
  }

  /** A signal that changes with one item. */
  item(id: string): Signal<number> {
    let found = this.#items.get(id);
    if (!found) this.#items.set(id, (found = signal(0)));
    return found;
  }

  #due = new Set<string>();

  /** Show an item's new content: at once, or a moment later where that is much to draw again. */
  show(item: Item): void {
    if (item.output.length < SHORT_OUTPUT) {
      this.item(item.id).value = item.version;
    } else if (!this.#due.has(item.id)) {
      this.#due.add(item.id);
      setTimeout(() => {
        this.#due.delete(item.id);
        this.item(item.id).value = item.version;
      }, LONG_OUTPUT_MS);
    }
  }

  /** The state, read so that a component is rendered again when it changes. */
  read(): ThreadState {
    void this.version.value;
    return this.state;
  }

  /** Let go of the oldest items, which nobody looks at. */
  forget(number: number): void {
    for (const id of this.state.order.slice(0, number)) this.#items.delete(id);
    forget(this.state, number);
  }

  touch(): void {
    this.version.value++;
    for (const [id, each] of this.#items) {
      const version = this.state.items.get(id)?.version ?? -1;
      if (each.peek() !== version) each.value = version;
    }
  }
}

export class Threads {
  #all = new Map<string, FollowedThread>();
  #pending: Message[] = [];
  #scheduled = false;
  #rpc: Rpc | null = null;
  #budget = 1_000;
  /** Told of each message that has been taken in. */
  onApplied: (message: Message) => void = () => undefined;

  get(id: string): FollowedThread {
    let found = this.#all.get(id);
    if (!found) this.#all.set(id, (found = new FollowedThread(id)));
    return found;
  }

  /** A person opens a thread. */
  open(id: string, now: number): FollowedThread {
    const thread = this.get(id);
    thread.lastOpened = now;
    if (!thread.followed && this.#rpc) void this.#join(this.#rpc, thread).catch(lost);
    else if (!thread.state.order.length) void this.#showKept(thread);
    this.#letGo();
    return thread;
  }

  /** Hear a message; it is taken in with the next frame. */
  hear(message: Message): void {
    this.#pending.push(message);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const hidden = document.visibilityState !== "visible";
    const frame = (): void => {
      this.#scheduled = false;
      const began = performance.now();
      const taken = this.#takeIn(FRAME_MS, hidden ? Infinity : this.#budget);
      if (!hidden && taken) afterFrame(() => this.#learn(taken, performance.now() - began));
    };
    if (hidden) setTimeout(frame, HIDDEN_MS);
    else requestAnimationFrame(frame);
  }

  /** A frame with so much new text took so long: the next one takes in what fits. */
  #learn(taken: number, ms: number): void {
    const fitting = (taken * DRAWN_MS) / Math.max(ms, 1);
    // Down at once, up with care; a frame of a few words says little about one of many.
    if (fitting < this.#budget) this.#budget = Math.max(LEAST_TEXT, fitting);
    else if (taken > this.#budget / 2) this.#budget = Math.min(MOST_TEXT, fitting, this.#budget * 1.2);
  }

  /** Take in what came, for so long and so much new text at most. Returns how much that was. */
  #takeIn(most: number, text: number): number {
    const began = performance.now();
    let taken = 0;
    const threads = new Set<FollowedThread>();
    const items = new Map<Item, FollowedThread>();
    const pending = this.#pending;
    let next = 0;
    while (next < pending.length && taken < text) {
      let message = pending[next]!;
      const cut = split(message, Math.max(LEAST_TEXT, text - taken));
      if (cut) [message, pending[next]] = cut;
      else next++;
      this.#take(message, threads, items);
      taken += message.params?.delta?.length ?? 0;
      if (next % 64 === 0 && performance.now() - began > most) break;
    }
    this.#pending = pending.slice(next);
    if (this.#pending.length) this.#schedule();
    for (const [item, thread] of items) thread.show(item);
    for (const thread of threads) thread.touch();
    return taken;
  }

  #take(message: Message, threads: Set<FollowedThread>, items: Map<Item, FollowedThread>): void {
    const id = threadOf(message);
    const thread = id === undefined ? undefined : this.#all.get(id);
    if (thread?.next) apply(thread.next, message);
    else if (thread?.followed) {
      const changed = apply(thread.state, message);
      if (changed === true) threads.add(thread);
      else if (changed) items.set(changed, thread);
      if (message.method === "thread/reverted" && this.#rpc) {
        void this.#join(this.#rpc, thread).catch(lost);
      }
    }
    this.onApplied(message);
  }

  /** Take in all that came, now. */
  flush(): void {
    this.#takeIn(Infinity, Infinity);
  }

  // -- a connection comes and goes -----------------------------------------------------------------

  /** The connection is gone: this is the place up to which all was dealt with. */
  disconnected(cursor: Cursor | null): void {
    this.flush();
    this.#rpc = null;
    for (const thread of this.#all.values()) {
      if (thread.followed && cursor) thread.state.cursor = cursor;
      thread.followed = false;
    }
  }

  /** Bring what was followed, and what is open, up to date over a new connection. */
  async connected(rpc: Rpc, epoch: string, open: string | null): Promise<void> {
    this.#rpc = rpc;
    const wanted = [...this.#all.values()].filter(
      (each) => each.state.id === open || each.state.cursor !== null,
    );
    const recent = wanted
      .sort((a, b) => b.lastOpened - a.lastOpened)
      .slice(0, FOLLOWED_MOST);
    const byCursor = new Map<number, FollowedThread[]>();
    const anew: FollowedThread[] = [];
    for (const each of recent) {
      const cursor = each.state.cursor;
      if (cursor?.epoch !== epoch) anew.push(each);
      else byCursor.set(cursor.seq, [...(byCursor.get(cursor.seq) ?? []), each]);
    }
    for (const [seq, threads] of byCursor) {
      anew.push(...(await this.#replay(rpc, { epoch, seq }, threads)));
    }
    await Promise.all(anew.map((each) => this.#join(rpc, each)));
    this.flush();
  }

  /** Follow threads again from a cursor. Returns those that need a snapshot. */
  async #replay(rpc: Rpc, after: Cursor, threads: FollowedThread[]): Promise<FollowedThread[]> {
    // What comes after the answer is theirs already.
    for (const each of threads) each.followed = true;
    const threadIds = threads.map((each) => each.state.id);
    let anew = threads;
    try {
      const answer = await rpc.request("mux/replay", { after, threadIds, merged: true });
      const missing = new Set<string>(answer.complete ? answer.missing : threadIds);
      anew = threads.filter((each) => missing.has(each.state.id));
      // An answer stands at its place behind what was missed: when it comes, all has come.
      if (answer.complete) await rpc.request("mux/queue/list", {}).catch(() => undefined);
    } catch (failure) {
      if (failure instanceof Gone) throw failure;
    }
    for (const each of anew) each.followed = false;
    this.flush();
    return anew;
  }

  async #join(rpc: Rpc, thread: FollowedThread): Promise<void> {
    if (thread.joining) return;
    thread.joining = true;
    thread.loading.value = true;
    thread.trouble.value = "";
    if (!thread.state.order.length) void this.#showKept(thread);
    try {
      await this.#snapshot(rpc, thread);
    } catch (failure) {
      if (failure instanceof Gone) throw failure;
      thread.trouble.value = (failure as Error).message;
    } finally {
      thread.joining = false;
      thread.loading.value = false;
    }
  }

  async #snapshot(rpc: Rpc, thread: FollowedThread): Promise<void> {
    const id = thread.state.id;
    const params = { threadId: id, excludeTurns: true };
    const answer = await rpc.request<ThreadResumeResponse>("thread/resume", params);
    this.flush();
    const { model, reasoningEffort: effort } = answer;
    const state = join({ thread: answer.thread, model, effort });
    const before = thread.state;
    thread.next = state;
    try {
      const [items, turns] = await Promise.all([
        page<ThreadItemEntry>(rpc, "thread/items/list", { threadId: id, limit: PAGE }),
        page<Turn>(rpc, "thread/turns/list", { threadId: id, limit: TURNS, itemsView: "notLoaded" }),
      ]);
      this.flush();
      takePages(state, { items: items.data, turns: turns.data, older: items.next });
      state.decisions = new Map([...before.decisions, ...state.decisions]);
    } finally {
      thread.next = null;
    }
    thread.state = state;
    thread.followed = true;
    thread.keptAt.value = 0;
    thread.touch();
    void this.#keep(thread);
  }

  /** Load the page of items before those that are there. */
  async older(thread: FollowedThread): Promise<void> {
    const { state } = thread;
    const rpc = this.#rpc;
    if (!rpc || state.older === null || thread.loading.value) return;
    thread.loading.value = true;
    const before = state.order[0];
    try {
      // Where some were let go of, the first pages hold what is here already.
      while (state.older !== null && state.order[0] === before) {
        const params = { threadId: state.id, limit: PAGE, cursor: state.older || undefined };
        const items = await page<ThreadItemEntry>(rpc, "thread/items/list", params);
        takeOlder(state, items.data, items.next);
      }
      thread.touch();
    } catch {
      // Lost on the way: scrolling up again asks again.
    } finally {
      thread.loading.value = false;
    }
  }

  #letGo(): void {
    const followed = [...this.#all.values()].filter((each) => each.followed);
    followed.sort((a, b) => b.lastOpened - a.lastOpened);
    for (const each of followed.slice(FOLLOWED_MOST)) {
      each.followed = false;
      each.state.cursor = null;
      this.#rpc?.request("thread/unsubscribe", { threadId: each.state.id }).catch(() => undefined);
    }
  }

  // -- what is kept for the next start -------------------------------------------------------------

  async #keep(thread: FollowedThread): Promise<void> {
    const { state } = thread;
    const items = state.order.slice(-KEPT_ITEMS).map((id) => state.items.get(id)!);
    if (state.thread?.ephemeral) return;
    const turns = [...state.turns.values()].slice(-TURNS);
    await keepTexts(`thread/${state.id}`, { thread: state.thread, items, turns });
  }

  async #showKept(thread: FollowedThread): Promise<void> {
    const found = await keptTexts<any>(`thread/${thread.state.id}`);
    if (!found || thread.state.order.length) return;
    const { thread: meta, items, turns } = found.value;
    thread.state.thread = meta;
    for (const each of items) thread.state.items.set(each.id, { ...each, running: false });
    for (const each of turns) thread.state.turns.set(each.id, each);
    thread.state.order = items.map((each: { id: string }) => each.id);
    thread.keptAt.value = found.at;
    thread.touch();
  }

  /** Keep what is open, as the page may be put away for good. */
  keepAll(): void {
    for (const each of this.#all.values()) if (each.followed) void this.#keep(each);
  }
}

/** Call when the frame that begins now has been drawn. */
function afterFrame(then: () => void): void {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = then;
  port2.postMessage(null);
}

/** The connection went meanwhile: the next one joins again. */
function lost(): void {}

/** A page, newest first; empty for a thread that has no history yet. */
async function page<Entry>(
  rpc: Rpc,
  method: string,
  params: object,
): Promise<{ data: Entry[]; next: string | null }> {
  try {
    const answer = await rpc.request(method, { ...params, sortDirection: "desc" });
    return { data: answer.data, next: answer.nextCursor };
  } catch (failure) {
    if (failure instanceof Gone) throw failure;
    return { data: [], next: null };
  }
}
