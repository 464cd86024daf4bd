// The files that a thread touched, as the broker lists them: which of them a text names, which of
// them a turn made, and which one a person looks at.

import { signal } from "@preact/signals";
import type { Result, ThreadFile } from "@mux/mux.files.list";
import type { Rpc } from "../connection/rpc.ts";

const byThread = signal<ReadonlyMap<string, ThreadFile[]>>(new Map());

/** What a person looks at: one file, or the list of a turn's or of the thread's. */
export type Looking =
  | { threadId: string; path: string }
  | { threadId: string; turnId: string | null };

export const looking = signal<Looking | null>(null);

export function filesIn(threadId: string): ThreadFile[] {
  return byThread.value.get(threadId) ?? [];
}

/** Read the list anew. A broker that can't tell it leaves the one that is known. */
export async function readFiles(rpc: Rpc, threadId: string): Promise<void> {
  const said = await rpc.request<Result>("mux/files/list", { threadId }).catch(() => null);
  if (said) byThread.value = new Map(byThread.value).set(threadId, said.files);
}

/** The files that weren't there before a turn. */
export function madeBy(files: readonly ThreadFile[], turnId: string): ThreadFile[] {
  return files.filter((each) => each.turnId === turnId && (each.how === "created" || each.how === "generated"));
}

const PLACE = /(?::\d+(?:-\d+)?){1,2}$/;

/** The file that a piece of text names: by its path, the end of it, or its name. */
export function named(files: readonly ThreadFile[], text: string): ThreadFile | undefined {
  if (!files.length || text.length > 300) return undefined;
  const path = text.replace(PLACE, "").replace(/^\.\//, "");
  if (!path) return undefined;
  const found = files.filter((each) => each.path === path || each.path.endsWith(`/${path}`));
  return found.length === 1 ? found[0] : undefined;
}
