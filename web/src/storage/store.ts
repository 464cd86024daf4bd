// What is kept on the device: in IndexedDB the key, drafts, messages that wait, texts last seen; in the
// storage that answers at once the little that the first screen begins with.

import { clear, createStore, del, get, keys, set, type UseStore } from "idb-keyval";

/** Texts are kept no longer than this: a lost device shows a day at most. */
export const TEXTS_KEPT_MS = 24 * 60 * 60 * 1000;

let made: UseStore | undefined;

/** The one place in IndexedDB where everything of ours is. */
export function pageStore(): UseStore {
  made ??= createStore("appmux", "page");
  return made;
}

export async function keep(key: string, value: unknown): Promise<void> {
  await set(key, value, pageStore()).catch(() => undefined);
}

export async function kept<Value>(key: string): Promise<Value | undefined> {
  return get<Value>(key, pageStore()).catch(() => undefined);
}

export async function drop(key: string): Promise<void> {
  await del(key, pageStore()).catch(() => undefined);
}

/** All that is kept under keys that begin so. */
export async function keptUnder<Value>(prefix: string): Promise<Value[]> {
  const all = await keys<string>(pageStore()).catch(() => []);
  const found = await Promise.all(all.filter((key) => key.startsWith(prefix)).map((key) => kept<Value>(key)));
  return found.filter((each) => each !== undefined);
}

/** Keep texts, with the moment at which they were true. */
export async function keepTexts(key: string, value: unknown): Promise<void> {
  await keep(`texts/${key}`, { at: Date.now(), value });
}

/** What was kept by `keepTexts`, unless it is too old. */
export async function keptTexts<Value>(
  key: string,
): Promise<{ at: number; value: Value } | undefined> {
  const found = await kept<{ at: number; value: Value }>(`texts/${key}`);
  if (!found || Date.now() - found.at < TEXTS_KEPT_MS) return found;
  await drop(`texts/${key}`);
  return undefined;
}

/** What `keepAtOnce` kept, without waiting. */
export function atOnce<Value>(key: string): Value | undefined {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

/** Keep something small for `atOnce`; undefined removes it. */
export function keepAtOnce(key: string, value: unknown): void {
  try {
    if (value === undefined) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // No storage, or a full one: the next start waits a moment longer.
  }
}

/** Remove everything of ours from this device. */
export async function forgetAll(): Promise<void> {
  await clear(pageStore()).catch(() => undefined);
  try {
    localStorage.clear();
    sessionStorage.clear();
  } catch {
    // No storage: nothing to clear.
  }
  if ("caches" in globalThis) {
    for (const name of await caches.keys()) {
      if (name.startsWith("appmux-texts")) await caches.delete(name);
    }
  }
}
