// Push on this device: whether it can be on, turned on and off, and what is told.

import { liveRpc } from "../connection/runtime.ts";
import { keep, kept } from "../storage/store.ts";
import { standalone } from "../views/platform.ts";

export type Level = "opaque" | "title" | "full";

/** Why push can't be on here, and what to do; null where it can. */
export function obstacle(): { why: string; todo: string } | null {
  if (!isSecureContext) {
    return { why: "Over plain http there is no push.", todo: "Open the page by https." };
  }
  const apple = /iPhone|iPad/.test(navigator.userAgent) ||
    (navigator.userAgent.includes("Macintosh") && navigator.maxTouchPoints > 1);
  if (apple && !standalone()) {
    return {
      why: "On an iPhone push is for apps on the Home Screen only.",
      todo: "In Safari tap Share, then “Add to Home Screen”. Open it from there, and pair it.",
    };
  }
  if (!("serviceWorker" in navigator) || !("PushManager" in globalThis)) {
    return { why: "This browser has no push.", todo: "Another browser may have it." };
  }
  if (globalThis.Notification?.permission === "denied") {
    return {
      why: "Notifications of this page are blocked.",
      todo: "Allow them in the browser’s settings for this page, then come back.",
    };
  }
  return null;
}

async function registration(): Promise<ServiceWorkerRegistration> {
  const found = await navigator.serviceWorker.getRegistration();
  if (!found) throw new Error("The page’s worker isn’t running yet: reload the page.");
  return found;
}

export async function isOn(): Promise<boolean> {
  if (obstacle()) return false;
  const found = await navigator.serviceWorker.getRegistration();
  return !!(await found?.pushManager.getSubscription()) && !!(await kept("push"));
}

/** Turn push on: permission, subscription, registration with the broker. */
export async function turnOn(level: Level): Promise<void> {
  const rpc = liveRpc();
  if ((await Notification.requestPermission()) !== "granted") {
    throw new Error("Notifications weren’t allowed.");
  }
  const { services } = await rpc.request("mux/push/list", {});
  const key = services.webpush?.applicationServerKey;
  if (!key) throw new Error("The broker has no Web Push: see docs/push.md.");
  const worker = await registration();
  const before = await worker.pushManager.getSubscription();
  if (before && !sameKey(before.options.applicationServerKey, key)) await before.unsubscribe();
  const made = await worker.pushManager.subscribe({
    userVisibleOnly: true,
    applicationServerKey: key,
  });
  const { endpoint, keys } = made.toJSON();
  const address = { endpoint, p256dh: keys!.p256dh, auth: keys!.auth };
  const navigate = `${location.origin}/`;
  const params = { service: "webpush", address, level, navigate };
  const said = await rpc.request("mux/push/register", params);
  await keep("push", { id: said.id, level });
}

export async function turnOff(): Promise<void> {
  const known = await kept<{ id: string }>("push");
  if (known) await liveRpc().request("mux/push/unregister", { id: known.id }).catch(() => undefined);
  await (await (await registration()).pushManager.getSubscription())?.unsubscribe();
  await keep("push", undefined);
}

export async function levelNow(): Promise<Level> {
  return (await kept<{ level: Level }>("push"))?.level ?? "opaque";
}

function sameKey(bytes: ArrayBuffer | null, key: string): boolean {
  if (!bytes) return false;
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") === key.replace(/=+$/, "");
}
