// A draft a thread, kept on the device until it is sent.

import { drop, keep, kept } from "../storage/store.ts";
import type { Draft } from "./sending.ts";

const EMPTY: Draft = { text: "", pictures: [] };
const WRITE_MS = 250;
const timers = new Map<string, ReturnType<typeof setTimeout>>();
const latest = new Map<string, Draft>();

export async function draftOf(thread: string): Promise<Draft> {
  return latest.get(thread) ?? (await kept<Draft>(`draft/${thread}`)) ?? EMPTY;
}

export function keepDraft(thread: string, draft: Draft): void {
  latest.set(thread, draft);
  clearTimeout(timers.get(thread));
  timers.set(thread, setTimeout(() => void write(thread), WRITE_MS));
}

async function write(thread: string): Promise<void> {
  const draft = latest.get(thread) ?? EMPTY;
  if (draft.text || draft.pictures.length) await keep(`draft/${thread}`, draft);
  else await drop(`draft/${thread}`);
}

/** Write all that isn't written: the page may be put away now. */
export function writeDrafts(): void {
  for (const [thread, timer] of timers) {
    clearTimeout(timer);
    void write(thread);
  }
  timers.clear();
}

addEventListener("pagehide", writeDrafts);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") writeDrafts();
});
