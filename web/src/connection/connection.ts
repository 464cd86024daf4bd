// The connection's life: made, lost, made again, and caught up before it is called live.

import type { Cursor, Message } from "../wire.ts";
import { type Identity, NOT_LET_IN, NotLetIn, PATIENCE_MS, reached, Unreachable, whyClosed } from "./connect.ts";
import { type Device, proof } from "./device.ts";
import { Gone, Rpc } from "./rpc.ts";

/** `live` alone is the present; everything else shows what was. */
export type Phase = "connecting" | "catchingUp" | "live" | "offline" | "signedOut";

export interface Hello {
  epoch: string;
  seq: number;
  clientId: number;
  generation: number;
  /** The version of the extension that the broker speaks. */
  version: number;
}

export interface Listener {
  phase(phase: Phase, why: string): void;
  message(message: Message): void;
  /** The page's address has ended, for the reason that is told; it may come back all the same. */
  ended(why: string): void;
  /** Bring everything up to date, over the new connection; it is live when this is done. */
  catchUp(rpc: Rpc, hello: Hello, identity: Identity, inbox: Promise<any>): Promise<void>;
}

/** The version of the extension that this page speaks. */
export const PROTOCOL = 1;

/**
 * How long a delta may wait for the next one on its way here. Less than a frame, so that a person sees it no
 * later; what comes in a burst is one message all the same.
 */
const COALESCE_MS = 8;

/** Close code: this page's origin isn't served any more. */
const ENDED = 4410;

/** Pauses between tries, in milliseconds: quick at first, as most losses are short. */
const PAUSES = [250, 500, 1000, 2000, 4000, 8000, 15_000, 30_000];

/** A connection that says nothing for so long after a question is dead. */
const SILENCE_MS = 6000;

/** Nothing asks more often than this whether the connection is alive. */
const CHECK_MS = 25_000;

export class Connection {
  rpc: Rpc | null = null;
  hello: Hello | null = null;
  identity: Identity | null = null;
  phase: Phase = "connecting";
  /** The greatest number that was dealt with on this connection. */
  seq = 0;

  #device: Device;
  #listener: Listener;
  #socket: WebSocket | null = null;
  #tries = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #working = false;
  #ended = false;
  #doubted = false;

  constructor(device: Device, listener: Listener) {
    this.#device = device;
    this.#listener = listener;
  }

  start(): void {
    addEventListener("online", () => this.wake());
    addEventListener("offline", () => this.#lose("this device has no network"));
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.wake();
    });
    addEventListener("pageshow", () => this.wake());
    setInterval(() => this.#check(), CHECK_MS);
    void this.#try();
  }

  /** Connect now if that isn't so, and find out now if it is. */
  wake(): void {
    if (this.#ended) return;
    if (this.rpc) this.#check();
    else {
      this.#tries = 0;
      clearTimeout(this.#timer);
      void this.#try();
    }
  }

  /** The place up to which everything that came was dealt with. */
  cursor(): Cursor | null {
    return this.hello ? { epoch: this.hello.epoch, seq: this.seq } : null;
  }

  /** End for good. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#drop("signed out");
    this.#say("signedOut", "");
  }

  async #try(): Promise<void> {
    if (this.#working || this.rpc || this.#ended) return;
    this.#working = true;
    if (this.phase !== "offline") this.#say("connecting", "");
    try {
      await this.#connect();
      this.#tries = 0;
      this.#doubted = false;
    } catch (failure) {
      this.#drop((failure as Error).message);
      if (failure instanceof NotLetIn) {
        this.end();
        return;
      }
      this.#say("offline", (failure as Error).message);
      this.#again();
    } finally {
      this.#working = false;
    }
  }

  async #connect(): Promise<void> {
    const { socket, challenge } = await reached();
    const signature = await proof(this.#device, challenge);
    if (socket.readyState !== WebSocket.OPEN) throw new Unreachable("the connection was lost");
    const rpc = new Rpc(socket, (message) => this.#hear(message));
    let letIn = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const gone = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Unreachable("no answer in time"));
        socket.close();
      }, PATIENCE_MS);
      socket.onclose = (event) => {
        clearTimeout(timer);
        reject(letIn ? new Gone(event.reason || "the connection was lost") : whyClosed(event));
        this.#closed(socket, event);
      };
    });
    gone.catch(() => undefined);
    socket.onmessage = (event) => rpc.receive(event.data);
    // All in one breath, down to what there is to read: each answer would take a round trip more. A proof
    // that is refused is followed by a close, which says the same by its code.
    const proven = rpc.request<Identity>("mux/session/prove", { device: this.#device.device, signature });
    const greeting = rpc.request("initialize", {
      clientInfo: { name: "appmux-page", title: "appmux page", version: __VERSION__ },
      capabilities: {
        experimentalApi: true,
        requestAttestation: false,
        extensions: { appmux: { version: PROTOCOL, coalesce: COALESCE_MS } },
      },
    });
    greeting.catch(() => undefined);
    rpc.notify("initialized");
    const inbox = rpc.request("mux/inbox", { follow: true });
    inbox.catch(() => undefined);
    const identity = await Promise.race([proven.catch(() => gone), gone]);
    clearTimeout(timer);
    letIn = true;
    this.#socket = socket;
    this.#say("catchingUp", "");
    const hello = await Promise.race([greeting, gone]);
    this.rpc = rpc;
    this.identity = identity;
    this.hello = hello.appmux;
    this.seq = hello.appmux.seq;
    await Promise.race([this.#listener.catchUp(rpc, hello.appmux, identity, inbox), gone]);
    if (this.rpc === rpc) this.#say("live", "");
  }

  #hear(message: Message): void {
    const number = message.seq ?? message.cursor;
    if (number !== undefined && number > this.seq) this.seq = number;
    this.#listener.message(message);
  }

  #closed(socket: WebSocket, event: CloseEvent): void {
    if (socket !== this.#socket) return;
    this.#drop(event.reason);
    if (this.#ended) return;
    // Other scopes close a connection as well: whether we are let in, the next challenge tells.
    if (event.code === NOT_LET_IN && !this.#doubted) {
      this.#doubted = true;
      void this.#try();
      return;
    }
    if (event.code === ENDED) this.#listener.ended(event.reason);
    this.#say("offline", event.reason || "the connection was lost");
    if (!this.#working) this.#again();
  }

  #lose(why: string): void {
    if (this.#ended) return;
    this.#drop(why);
    this.#say("offline", why);
    this.#again();
  }

  #drop(why: string): void {
    const rpc = this.rpc;
    const socket = this.#socket;
    this.rpc = this.#socket = null;
    socket?.close();
    rpc?.end(why);
  }

  #again(): void {
    clearTimeout(this.#timer);
    const pause = PAUSES[Math.min(this.#tries++, PAUSES.length - 1)]!;
    this.#timer = setTimeout(() => void this.#try(), pause * (0.75 + Math.random() / 2));
  }

  /** Ask something small: a phone's socket may be dead without anybody saying so. */
  #check(): void {
    const rpc = this.rpc;
    if (!rpc || document.visibilityState !== "visible") return;
    const timer = setTimeout(() => {
      if (this.rpc === rpc) this.#lose("the broker doesn't answer");
      this.wake();
    }, SILENCE_MS);
    rpc
      .request("mux/queue/list", {})
      .catch(() => undefined)
      .finally(() => clearTimeout(timer));
  }

  #say(phase: Phase, why: string): void {
    this.phase = phase;
    this.#listener.phase(phase, why);
  }
}
