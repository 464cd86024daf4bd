// Messages of this device that aren't known to have arrived: each is sent once, whatever the
// network does. Its id goes with every try, and the broker runs one id once.

import type { UserInput } from "../wire.ts";

export type Mode = "steer" | "queue";

export interface Outgoing {
  /** The `clientUserMessageId`. */
  id: string;
  threadId: string;
  input: UserInput[];
  /** What it says, for showing. */
  text: string;
  pictures: number;
  /** What becomes of it if a turn runs. */
  mode: Mode;
  at: number;
  /** The thread's last turn when it was written; null if it had none. */
  lastTurn: string | null;
  /** Overrides of the turn: model, effort. */
  options: Record<string, unknown>;
  state: "waiting" | "sending" | "failed" | "asks" | "queued";
  /** Why it failed, or why it asks. */
  why: string;
  /** A person has said that it should go all the same. */
  confirmed: boolean;
  /** Its id in the queue, and its place. */
  queueId: number | null;
  place: number | null;
}

/** A message older than this asks before it goes. */
export const STALE_MS = 10 * 60 * 1000;

export interface Circumstances {
  now: number;
  live: boolean;
  /** The thread's last turn as it is known now; undefined if it isn't known. */
  lastTurn: string | null | undefined;
}

/** What to do with a message now. */
export function decide(message: Outgoing, now: Circumstances): "send" | "ask" | "wait" {
  if (message.state !== "waiting" || !now.live) return "wait";
  if (message.confirmed) return "send";
  return doubt(message, now) ? "ask" : "send";
}

/** Why a message should ask before it goes; empty if it needn't. */
export function doubt(message: Outgoing, now: Circumstances): string {
  if (now.now - message.at > STALE_MS) return "It was written more than ten minutes ago.";
  const later = now.lastTurn !== undefined && now.lastTurn !== message.lastTurn;
  // Only what waited for the network can have been overtaken.
  if (later && now.now - message.at > GRACE_MS) return "The thread has had a turn since.";
  return "";
}

/** So long a message may take on its way without having been overtaken. */
const GRACE_MS = 5000;

/** After a reload nobody knows whether what was under way arrived: it is sent again, as itself. */
export function restored(kept: Outgoing[]): Outgoing[] {
  return kept.map((each) => (each.state === "sending" ? { ...each, state: "waiting" } : each));
}

/** A message that the journal has is no longer ours to send. */
export function arrived(kept: Outgoing[], clientId: string | null): Outgoing[] {
  return clientId && kept.some((each) => each.id === clientId)
    ? kept.filter((each) => each.id !== clientId)
    : kept;
}

export function update(
  kept: Outgoing[],
  id: string,
  change: Partial<Outgoing>,
): Outgoing[] {
  return kept.map((each) => (each.id === id ? { ...each, ...change } : each));
}

/** In words, where a message is. */
export function stateOf(message: Outgoing, live: boolean): string {
  switch (message.state) {
    case "waiting":
      return live ? "sending" : "waits for the connection";
    case "sending":
      return "sending";
    case "queued":
      return `queued as number ${message.place ?? "?"}`;
    case "failed":
      return `not sent: ${message.why}`;
    case "asks":
      return message.why;
  }
}
