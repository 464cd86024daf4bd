// Turns that the real app-server wrote (tests/core/recorded), numbered as the broker numbers them.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Message, Thread, ThreadItemEntry, Turn } from "../src/wire.ts";

const FOLDER = join(process.cwd(), "..", "tests", "core", "recorded");

export interface Recording {
  name: string;
  thread: Thread;
  /** What the thread's followers were sent, each with its number. */
  messages: Message[];
}

/** Of these the journal holds no entry: they are told to everybody, or are an answer. */
const NOT_OF_THE_THREAD = new Set(["thread/started"]);

export const recordings: Recording[] = readdirSync(FOLDER)
  .filter((each) => each.endsWith(".jsonl"))
  .map((file) => {
    const lines = readFileSync(join(FOLDER, file), "utf8").trim().split("\n");
    const [first, ...rest] = lines.map((each) => JSON.parse(each));
    const thread = first.result.thread as Thread;
    const messages = rest
      .slice(0, -1)
      .filter((each) => each.method && !NOT_OF_THE_THREAD.has(each.method))
      .map((each, index) => ({ ...each, seq: 10 + index }));
    return { name: file, thread, messages };
  });

/** What the pages of a snapshot say after so many messages: complete items, newest first. */
export function pagesAfter(messages: Message[], count: number): { items: ThreadItemEntry[]; turns: Turn[] } {
  const begun: string[] = [];
  const done = new Map<string, ThreadItemEntry>();
  const turns = new Map<string, Turn>();
  for (const { method, params } of messages.slice(0, count)) {
    if (method === "item/started" || method === "item/completed") {
      if (!begun.includes(params.item.id)) begun.push(params.item.id);
    }
    if (method === "item/completed") {
      const { turnId, item, startedAtMs = null, completedAtMs = null } = params;
      done.set(item.id, { turnId, item, startedAtMs, completedAtMs });
    }
    if (method === "turn/started" || method === "turn/completed") turns.set(params.turn.id, params.turn);
  }
  const items = begun.filter((id) => done.has(id)).map((id) => done.get(id)!);
  return { items: items.reverse(), turns: [...turns.values()].reverse() };
}

/** What a joiner is told of items that run: their beginning, and what they streamed so far. */
export function introductions(messages: Message[], count: number): Message[] {
  const running = new Map<string, Message[]>();
  for (const message of messages.slice(0, count)) {
    const { method, params } = message;
    const { seq: _, ...plain } = message;
    if (method === "item/started") running.set(params.item.id, [plain]);
    else if (method === "item/completed") running.delete(params.item.id);
    else if (method?.startsWith("item/") && running.has(params.itemId)) {
      running.get(params.itemId)!.push(plain);
    }
  }
  return [...running.values()].flat();
}

/** Consecutive deltas of one item come as one, as a replay with `merged` gives them. */
export function merged(messages: Message[]): Message[] {
  const made: Message[] = [];
  for (const message of messages) {
    const last = made.at(-1);
    const { method, params } = message;
    const same =
      last !== undefined &&
      last.method === method &&
      typeof params?.delta === "string" &&
      last.params.itemId === params.itemId &&
      last.params.summaryIndex === params.summaryIndex &&
      last.params.contentIndex === params.contentIndex;
    if (same) {
      const delta = last.params.delta + params.delta;
      made[made.length - 1] = { ...message, params: { ...params, delta } };
    } else made.push(message);
  }
  return made;
}
