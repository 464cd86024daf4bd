// Files on their way to a thread, by the tus protocol: in pieces, so that a connection that breaks
// costs one, and gone on with where the host says it is. Each is kept on the device until it is sent
// with a message or taken off, so that it goes on when the page is opened again.

import { signal } from "@preact/signals";
import { liveRpc } from "../connection/runtime.ts";
import { drop, keep, keptUnder } from "../storage/store.ts";
import { isPicture } from "./pictures.ts";
import type { Draft } from "./sending.ts";

const FILES = "/v1/files";

/** Where uploads are kept on the device. */
const UPLOADS = "upload/";

/** Stands for the thread of what goes with the first message of a new one. */
const NO_THREAD = "new";

/** Bytes of one request: a lost one costs a few seconds of a phone's network. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Between two tries to go on. */
const PAUSE_MS = 3000;

/** A token is renewed when it is good for less than this. */
const TOKEN_SPARE_MS = 60_000;

export interface Upload {
  id: string;
  threadId: string;
  name: string;
  size: number;
  sent: number;
  state: "running" | "paused" | "failed" | "done";
  /** Why it failed. */
  why: string;
  /** Where it lies on the host, once it does. */
  path: string;
  type: string;
}

interface Running {
  file: File;
  url: string;
  abort: AbortController;
}

/** An upload as it is kept on the device. One that is done needs its file no more. */
interface Kept {
  upload: Upload;
  url: string;
  file: File | null;
}

/** All of this page, in the order in which they were begun. */
export const uploads = signal<Upload[]>([]);

const running = new Map<string, Running>();

/** The host has answered no: trying again is of no use. */
class Refused extends Error {
  status: number;
  constructor(status: number, message?: string) {
    super(message ?? `The host answered ${status}.`);
    this.status = status;
  }
}

const keyOf = (id: string): string => `${UPLOADS}${id}`;

/** Go on with what an earlier life of this page has begun. */
export async function restoreUploads(): Promise<void> {
  const all = await keptUnder<Kept>(UPLOADS);
  const found = all.filter(({ upload }) => !uploads.value.some((each) => each.id === upload.id));
  uploads.value = [...found.map((each) => each.upload), ...uploads.value];
  for (const { upload, url, file } of found) {
    if (!file) continue;
    running.set(upload.id, { file, url, abort: new AbortController() });
    if (upload.state === "running") void run(upload.id);
  }
}

/** Keep an upload as it stands. A full device keeps none: it goes on for as long as the page is open. */
function keepUpload(id: string): void {
  const upload = uploads.value.find((each) => each.id === id);
  const now = running.get(id);
  if (!upload || !now) return;
  const file = upload.state === "done" ? null : now.file;
  void keep(keyOf(id), { upload, url: now.url, file });
}

export function uploadsOf(threadId: string): Upload[] {
  return uploads.value.filter((each) => each.threadId === threadId);
}

export function beginUpload(threadId: string, file: File): void {
  const upload: Upload = {
    id: crypto.randomUUID(),
    threadId,
    name: file.name || "upload",
    size: file.size,
    sent: 0,
    state: "running",
    why: "",
    path: "",
    type: file.type,
  };
  uploads.value = [...uploads.value, upload];
  running.set(upload.id, { file, url: "", abort: new AbortController() });
  keepUpload(upload.id);
  void run(upload.id);
}

/** Pause an upload that runs; go on with another. */
export function toggleUpload(id: string): void {
  const now = running.get(id);
  if (!now) return;
  const runs = uploads.value.find((each) => each.id === id)?.state === "running";
  now.abort.abort();
  now.abort = new AbortController();
  change(id, { state: runs ? "paused" : "running", why: "" });
  keepUpload(id);
  if (!runs) void run(id);
}

/** Take an upload off: what is unfinished is given up on the host, too. */
export function dropUpload(id: string): void {
  const now = running.get(id);
  const upload = uploads.value.find((each) => each.id === id);
  now?.abort.abort();
  running.delete(id);
  void drop(keyOf(id));
  uploads.value = uploads.value.filter((each) => each.id !== id);
  if (now?.url && upload?.state !== "done") {
    void ask("DELETE", now.url).catch(() => undefined);
  }
}

function change(id: string, what: Partial<Upload>): void {
  uploads.value = uploads.value.map((each) => (each.id === id ? { ...each, ...what } : each));
}

/** Of several tabs one sends a file: another one goes on with it when that one is closed. */
async function run(id: string): Promise<void> {
  const signal = running.get(id)?.abort.signal;
  if (!signal) return;
  if (!navigator.locks) return send(id, signal);
  await navigator.locks.request(keyOf(id), { signal }, () => send(id, signal)).catch(() => undefined);
}

async function send(id: string, stop: AbortSignal): Promise<void> {
  const now = running.get(id);
  const upload = uploads.value.find((each) => each.id === id);
  if (!now || !upload) return;
  let begun = now.url;
  while (!stop.aborted) {
    try {
      if (!now.url) {
        now.url = (await ask("POST", FILES, stop, announced(upload))).headers.get("location")!;
        keepUpload(id);
      }
      let sent = offsetOf(await ask("HEAD", now.url, stop));
      while (sent < now.file.size) {
        change(id, { sent });
        const piece = now.file.slice(sent, sent + PIECE_BYTES);
        sent = offsetOf(await ask("PATCH", now.url, stop, { "Upload-Offset": `${sent}` }, piece));
      }
      const { path, name } = await (await ask("GET", now.url, stop)).json();
      change(id, { sent, state: "done", path, name });
      keepUpload(id);
      return;
    } catch (failure) {
      if (stop.aborted) return;
      if (failure instanceof Refused) {
        if (begun && failure.status === 404) {
          // What an earlier life has begun the host knows no more: once more, from the beginning.
          begun = now.url = "";
          continue;
        }
        change(id, { state: "failed", why: failure.message });
        keepUpload(id);
        return;
      }
      // The network, or the host, is away: later.
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

function announced(upload: Upload): Record<string, string> {
  const metadata: Record<string, string> = { filename: upload.name, filetype: upload.type };
  if (upload.threadId !== NO_THREAD) metadata.thread = upload.threadId;
  const pairs = Object.entries(metadata).map(([key, value]) => `${key} ${base64(value)}`);
  return { "Upload-Length": `${upload.size}`, "Upload-Metadata": pairs.join() };
}

const offsetOf = (answer: Response): number => Number(answer.headers.get("upload-offset"));

let token = { text: "", until: 0 };

/** Ask the host, as this device. Throws `Refused` for what no second try would change. */
async function ask(
  method: string,
  url: string,
  stop?: AbortSignal,
  more?: Record<string, string>,
  body?: Blob,
): Promise<Response> {
  if (token.until < Date.now() + TOKEN_SPARE_MS) {
    const given = await liveRpc().request("mux/session/token", {});
    token = { text: given.token, until: Date.now() + given.expiresInSeconds * 1000 };
  }
  const headers = {
    "Tus-Resumable": "1.0.0",
    "Content-Type": "application/offset+octet-stream",
    authorization: `Bearer ${token.text}`,
    ...more,
  };
  const answer = await fetch(url, { method, headers, body, signal: stop, cache: "no-store" });
  if (answer.ok) return answer;
  const { status } = answer;
  if (status === 401) token = { text: "", until: 0 };
  const told = await answer.json().catch(() => null);
  // No token any more, another offset, too many, no room, trouble there: what passes by itself.
  const passes = status > 499 || [401, 409, 429].includes(status);
  throw passes ? new Error(told?.message) : new Refused(status, told?.message);
}

/** Base64 of a text's UTF-8. */
export function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

/** Whether there is something to send, and all of its files are on the host. */
export function isReady(draft: Draft, files: readonly Upload[]): boolean {
  const something = draft.text.trim() || draft.pictures.length || files.length;
  return !!something && files.every((each) => each.path);
}

/**
 * What to send: pictures go as pictures from where they lie, and the text names other files, so that
 * the agent opens them. They are taken off here.
 */
export function takeFiles(draft: Draft, files: readonly Upload[]): Draft {
  for (const each of files) dropUpload(each.id);
  const uploaded = files.filter((each) => isPicture(each.type)).map((each) => each.path);
  const others = files.filter((each) => !isPicture(each.type));
  const lines = others.map((each) => `Attached file: ${each.path}`).join("\n");
  return { ...draft, text: `${draft.text.trim()}\n\n${lines}`.trim(), uploaded };
}
