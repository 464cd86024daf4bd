// This browser as a device: a key that can't leave it, and how it is let in.

import { atOnce, drop, keep, keepAtOnce, kept } from "../storage/store.ts";
import { dropInbox } from "../threads/kept-inbox.ts";
import type { Invitation } from "./invitation.ts";

/** What is known of this browser as a device. */
export interface Known {
  device: string;
  name: string;
  scopes: string[];
  expiresAt: number | null;
}

export interface Device extends Known {
  key: CryptoKeyPair;
}

/** A pairing that has begun: kept, so that a phone that locks or reloads goes on with it. */
export interface Pairing {
  by: Invitation;
  name: string;
  nonce: string;
  key: CryptoKeyPair;
  jwk: { kty: string; crv: string; x: string; y: string };
  code: string;
}

export class Refused extends Error {
  reason: string;
  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256" };

/** A pause before a pairing is asked about again after the network failed. */
const RETRY_MS = 1500;

export async function thisDevice(): Promise<Device | undefined> {
  const found = await kept<Device>("device");
  if (found) noteDevice(found);
  return found;
}

/** What is known of this browser before its key is read; whether the key is still there, that tells. */
export function notedDevice(): Known | undefined {
  return atOnce<Known>("device");
}

/** Forget what is known without the key. */
export function forgetNoted(): void {
  keepAtOnce("device", undefined);
  dropInbox();
}

function noteDevice({ device, name, scopes, expiresAt }: Device): void {
  const noted: Known = { device, name, scopes, expiresAt };
  if (JSON.stringify(notedDevice()) !== JSON.stringify(noted)) keepAtOnce("device", noted);
}

/** Whether this page may have a key: over https, or on loopback. */
export function canHaveKey(): boolean {
  return globalThis.isSecureContext && !!globalThis.crypto?.subtle;
}

export async function beginPairing(by: Invitation, name: string): Promise<Pairing> {
  const key = await crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"]);
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", key.publicKey);
  const jwk = { kty: kty!, crv: crv!, x: x!, y: y! };
  const nonce = base64url(crypto.getRandomValues(new Uint8Array(24)));
  const said = "ticket" in by ? by.ticket : by.letters;
  const code = await codeOf(["appmux session", said, name, nonce, jwk.x, jwk.y].join("\n"));
  const pairing = { by, name, nonce, key, jwk, code };
  await keep("pairing", pairing);
  return pairing;
}

export async function pairingUnderWay(): Promise<Pairing | undefined> {
  return kept<Pairing>("pairing");
}

export async function abandonPairing(): Promise<void> {
  await drop("pairing");
}

/** Ask until the operator has decided. Throws `Refused`. */
export async function awaitPairing(pairing: Pairing, signal: AbortSignal): Promise<Device> {
  const { by, name, nonce, jwk } = pairing;
  const body = JSON.stringify({ ...by, name, nonce, key: jwk });
  for (;;) {
    const answer = await ask(body, signal);
    if (answer === null) {
      await pause(RETRY_MS, signal);
    } else if (answer.state === "paired") {
      const { device, scopes, expiresAt } = answer;
      const made: Device = { device, name: answer.name, scopes, expiresAt, key: pairing.key };
      await keep("device", made);
      noteDevice(made);
      await drop("pairing");
      return made;
    }
  }
}

async function ask(body: string, signal: AbortSignal): Promise<any | null> {
  const headers = { "content-type": "application/json" };
  let response: Response;
  try {
    response = await fetch("/v1/session", { method: "POST", headers, body, signal });
  } catch (failure) {
    if (signal.aborted) throw failure;
    return null;
  }
  const said = await response.json().catch(() => null);
  if (response.ok) return said;
  await drop("pairing");
  const fallback =
    response.status === 403
      ? "The broker isn't reached under this address. Open the link that `appmux pair` shows."
      : `The broker answered ${response.status}.`;
  throw new Refused(said?.error ?? String(response.status), said?.message ?? fallback);
}

/** The signature that proves to be this device, for one challenge. */
export async function proof(
  device: Device,
  challenge: { nonce: string; time: number },
): Promise<string> {
  const lines = ["appmux challenge", device.device, challenge.nonce, location.origin];
  const text = [...lines, String(challenge.time)].join("\n");
  const how = { name: "ECDSA", hash: "SHA-256" };
  const bytes = new TextEncoder().encode(text);
  return base64url(new Uint8Array(await crypto.subtle.sign(how, device.key.privateKey, bytes)));
}

async function codeOf(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  const number = new DataView(digest).getBigUint64(0) % 1_000_000n;
  const digits = number.toString().padStart(6, "0");
  return `${digits.slice(0, 3)} ${digits.slice(3)}`;
}

export function base64url(bytes: Uint8Array): string {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
