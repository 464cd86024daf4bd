// A draft a thread, kept on the device until it is sent. Its text is written at once, so that no
// reload is quicker; its pictures, which are large, go to the database.

import { drop, keep, kept } from "../storage/store.ts";
import type { Draft } from "./sending.ts";

const latest = new Map<string, Draft>();

export async function draftOf(thread: string): Promise<Draft> {
  const known = latest.get(thread);
  if (known) return known;
  const pictures = (await kept<string[]>(`draft/${thread}`)) ?? [];
  // Something may have been typed while the pictures were read.
  return latest.get(thread) ?? { text: textOf(thread), pictures };
}

export function keepDraft(thread: string, draft: Draft): void {
  const before = latest.get(thread);
  latest.set(thread, draft);
  try {
    if (draft.text) localStorage.setItem(`draft/${thread}`, draft.text);
    else localStorage.removeItem(`draft/${thread}`);
  } catch {
    // A full storage: the draft is kept for as long as the page is open.
  }
  if (before?.pictures === draft.pictures) return;
  void (draft.pictures.length
    ? keep(`draft/${thread}`, draft.pictures)
    : drop(`draft/${thread}`));
}

/** The text of a draft that was kept by an earlier life of this page. */
export function textOf(thread: string): string {
  try {
    return latest.get(thread)?.text ?? localStorage.getItem(`draft/${thread}`) ?? "";
  } catch {
    return "";
  }
}
