// What the page knows, as signals. Only the functions beside each signal's concern write it.

import { computed, signal } from "@preact/signals";
import type { Request } from "./approvals/requests.ts";
import type { Outgoing } from "./composer/outbox.ts";
import type { Phase } from "./connection/connection.ts";
import type { Identity } from "./connection/connect.ts";
import type { Known } from "./connection/device.ts";
import { emptyInbox } from "./threads/inbox.ts";

export const phase = signal<Phase>("connecting");
export const phaseWhy = signal("");
/** When the phase began; of `offline`, when the present was last seen. */
export const phaseSince = signal(Date.now());
/** Why this page's address has ended, with where the page is now; empty if it hasn't. */
export const endedWhy = signal("");

/** This browser as a device; undefined while it isn't known, null if it isn't one. */
export const device = signal<Known | null | undefined>(undefined);
export const identity = signal<Identity | null>(null);

/** The broker speaks another protocol than this page: nothing can be done until a reload. */
export const outdated = signal(false);

export const inbox = signal(emptyInbox());
/** Whether the inbox is true now, or was kept. */
export const inboxKept = signal(true);

export const requests = signal<ReadonlyMap<number, Request>>(new Map());
/** Requests that have just been decided, with what is said of it. */
export const settled = signal<ReadonlyMap<number, string>>(new Map());

export const outgoing = signal<Outgoing[]>([]);

export interface QueuedTurn {
  id: number;
  place: number;
  name: string;
  principal: string;
  text: string;
  clientUserMessageId: string | null;
}

export interface Queue {
  threadId: string;
  held: string | null;
  turns: QueuedTurn[];
}

export const queues = signal<ReadonlyMap<string, Queue>>(new Map());

export interface Present {
  id: number;
  name: string;
  version: string;
  principal: string;
  device?: string;
  scopes: string[];
  threads: string[];
  since: number;
  lastDrove: number | null;
}

export const presence = signal<Present[]>([]);
export const ownClient = signal<number | null>(null);

/** Things said in passing, at the foot of the page. */
export const toasts = signal<{ id: number; text: string; kind: "info" | "error" }[]>([]);

export const scopes = computed(() => new Set(identity.value?.scopes ?? device.value?.scopes ?? []));

/** Acts on the present only: why not, or empty. */
export const cantAct = computed(() => {
  if (outdated.value) return "This page is older or newer than the broker. Reload it first.";
  if (phase.value === "live") return "";
  return phase.value === "catchingUp" ? "Still catching up." : "Not connected.";
});

let toastIds = 0;
const TOAST_MS = 5000;

export function say(text: string, kind: "info" | "error" = "info"): void {
  const id = ++toastIds;
  toasts.value = [...toasts.value.slice(-2), { id, text, kind }];
  setTimeout(() => {
    toasts.value = toasts.value.filter((each) => each.id !== id);
  }, TOAST_MS);
}

export function sayError(failure: unknown): void {
  say(failure instanceof Error ? failure.message : String(failure), "error");
}
