// Opens a socket to the broker, and has its challenge. What proves who we are follows, then JSON-RPC.

export const SUBPROTOCOL = "appmux.v1";

/** Milliseconds for the socket and its challenge: a phone on a bad link needs some. */
export const PATIENCE_MS = 12_000;

/** The broker's answer to the proof. */
export interface Identity {
  device: string;
  name: string;
  scopes: string[];
  expiresAt: number | null;
  host: string;
  version: string;
  token?: { token: string; expiresInSeconds: number };
}

export interface Challenge {
  nonce: string;
  time: number;
}

/** A socket whose broker waits for the proof. */
export interface Reached {
  socket: WebSocket;
  challenge: Challenge;
}

/** We aren't let in any more: what is kept here must go. */
export class NotLetIn extends Error {}

/** The broker couldn't be reached, or not in time. */
export class Unreachable extends Error {}

export const NOT_LET_IN = 4401;

/** Close codes of a challenge that wasn't answered in time, or not as one. */
export function whyClosed(event: CloseEvent): Error {
  if (event.code === NOT_LET_IN) return new NotLetIn(event.reason || "this device isn't let in");
  return new Unreachable(event.reason || "the broker can't be reached");
}

/** The one that was begun before it was known who we are. */
let early: Promise<Reached> | null = null;

/** Begin to reach the broker: its two round trips pass while the key is read and the page is drawn. */
export function reachEarly(): void {
  early = reach();
  early.catch(() => undefined);
}

/** Let go of what was begun early: nobody will prove anything over it. */
export function reachNobody(): void {
  void early?.then(({ socket }) => socket.close(), () => undefined);
  early = null;
}

/** The socket that was begun early if it is still open, else a new one. */
export async function reached(): Promise<Reached> {
  const begun = early;
  early = null;
  const found = await begun;
  return found?.socket.readyState === WebSocket.OPEN ? found : reach();
}

function reach(): Promise<Reached> {
  return new Promise((resolve, reject) => {
    const url = `${location.origin.replace(/^http/, "ws")}/`;
    const socket = new WebSocket(url, [SUBPROTOCOL]);
    const settle = (): void => {
      clearTimeout(timer);
      socket.onmessage = socket.onclose = null;
    };
    const timer = setTimeout(() => {
      settle();
      socket.close();
      reject(new Unreachable("no answer in time"));
    }, PATIENCE_MS);
    socket.onclose = (event) => {
      settle();
      reject(whyClosed(event));
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.method !== "mux/session/challenge") return;
      settle();
      resolve({ socket, challenge: message.params });
    };
  });
}
