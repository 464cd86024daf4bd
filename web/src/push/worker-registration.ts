// The service worker: registered by a script address that the page's policy names, and let take
// over when a person says so.

import { signal } from "@preact/signals";
import { go } from "../route.ts";

/** A newer page has been fetched, and waits for a reload. */
export const newer = signal(false);

const policy = globalThis.trustedTypes?.createPolicy("appmux-worker", {
  createScriptURL: (url: string) => {
    if (url !== "/worker.js") throw new TypeError("only our own worker");
    return url;
  },
});

export async function startWorker(): Promise<void> {
  if (!("serviceWorker" in navigator) || !isSecureContext) return;
  navigator.serviceWorker.addEventListener("message", (event) => {
    if (event.data?.go) go(String(event.data.go));
  });
  const url = (policy?.createScriptURL("/worker.js") ?? "/worker.js") as string;
  try {
    const found = await navigator.serviceWorker.register(url, { updateViaCache: "none" });
    watch(found);
  } catch {
    // Without a worker the page works, but for what needs one.
  }
}

function watch(found: ServiceWorkerRegistration): void {
  const look = (): void => {
    if (found.waiting && navigator.serviceWorker.controller) newer.value = true;
  };
  look();
  found.addEventListener("updatefound", () => {
    found.installing?.addEventListener("statechange", look);
  });
}

/** A connection was made: is the page still the one that the host has? */
export async function lookForNewer(version: string): Promise<void> {
  const found = await navigator.serviceWorker?.getRegistration().catch(() => undefined);
  if (found) await found.update().catch(() => undefined);
  else if (version !== __VERSION__) newer.value = true;
}

/** So long the new worker is waited for. */
const PATIENCE_MS = 8000;

/** Reload into the newest page that there is; drafts are on the device already. */
export async function reloadPage(): Promise<void> {
  const found = await navigator.serviceWorker?.getRegistration();
  await found?.update().catch(() => undefined);
  const next = found?.waiting ?? found?.installing;
  if (next) {
    const taken = new Promise<void>((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", () => resolve());
      setTimeout(resolve, PATIENCE_MS);
    });
    if (next.state !== "installed") {
      await new Promise<void>((resolve) => {
        next.addEventListener("statechange", () => next.state === "installed" && resolve());
        setTimeout(resolve, PATIENCE_MS);
      });
    }
    next.postMessage("take-over");
    await taken;
  }
  location.reload();
}
