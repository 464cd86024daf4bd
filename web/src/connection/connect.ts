// Opens a socket to the broker and proves who we are. What follows is JSON-RPC.

import type { Message } from "../wire.ts";
import { type Device, proof } from "./device.ts";

export const SUBPROTOCOL = "appmux.v1";

/** Seconds for the socket and the proof: a phone on a bad link needs some. */
const PATIENCE_MS = 12_000;

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

export interface Open {
  socket: WebSocket;
  identity: Identity;
}

/** We aren't let in any more: what is kept here must go. */
export class NotLetIn extends Error {}

/** The broker couldn't be reached, or not in time. */
export class Unreachable extends Error {}

export const NOT_LET_IN = 4401;

export function connect(device: Device): Promise<Open> {
  return new Promise((resolve, reject) => {
    const url = `${location.origin.replace(/^http/, "ws")}/`;
    const socket = new WebSocket(url, [SUBPROTOCOL]);
    const fail = (why: Error): void => {
      clearTimeout(timer);
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
      reject(why);
    };
    const timer = setTimeout(() => fail(new Unreachable("no answer in time")), PATIENCE_MS);
    socket.onclose = (event) => {
      if (event.code === NOT_LET_IN) fail(new NotLetIn(event.reason || "this device isn't let in"));
      else fail(new Unreachable(event.reason || "the broker can't be reached"));
    };
    socket.onmessage = async (event) => {
      const message = JSON.parse(event.data) as Message;
      try {
        if (message.method === "mux/session/challenge") {
          const signature = await proof(device, message.params);
          const params = { device: device.device, signature };
          socket.send(JSON.stringify({ id: 0, method: "mux/session/prove", params }));
        } else if (message.id === 0 && message.result) {
          clearTimeout(timer);
          socket.onmessage = socket.onclose = null;
          resolve({ socket, identity: message.result });
        }
        // A refusal is followed by a close, which says the same by its code.
      } catch (failure) {
        fail(failure as Error);
      }
    };
  });
}
