// Requests and answers over one socket. It knows nothing of what they mean.

import type { Message, RpcFault } from "../wire.ts";

/** What is needed of a socket. */
export interface Wire {
  send(text: string): void;
  close(): void;
}

/** An answer that is an error. */
export class RpcError extends Error {
  code: number;
  data: any;
  constructor(fault: RpcFault) {
    super(fault.message);
    this.code = fault.code;
    this.data = fault.data;
  }
}

/** The connection ended before the answer: whether it was done isn't known. */
export class Gone extends Error {}

interface Waiting {
  resolve(result: any): void;
  reject(why: Error): void;
}

export class Rpc {
  #waiting = new Map<number, Waiting>();
  #next = 1;
  #wire: Wire;
  #hear: (message: Message) => void;

  /** `hear` gets every message that is no answer. */
  constructor(wire: Wire, hear: (message: Message) => void) {
    this.#wire = wire;
    this.#hear = hear;
  }

  request<Result = any>(method: string, params: unknown = {}): Promise<Result> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#wire.send(JSON.stringify({ id, method, params }));
    });
  }

  notify(method: string, params: unknown = {}): void {
    this.#wire.send(JSON.stringify({ method, params }));
  }

  /** Take in what came over the socket. */
  receive(text: string): void {
    const message = JSON.parse(text) as Message;
    if (message.method !== undefined) {
      this.#hear(message);
      return;
    }
    const waiting = this.#waiting.get(message.id as number);
    if (!waiting) return;
    this.#waiting.delete(message.id as number);
    if (message.error) waiting.reject(new RpcError(message.error));
    else waiting.resolve(message.result);
  }

  /** Fail what waits: nothing more will come. */
  end(why: string): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const each of waiting) each.reject(new Gone(why));
  }
}
