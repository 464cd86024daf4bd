// The service worker: registered by a script address that the page's policy names.

import { go } from "../route.ts";

const policy = globalThis.trustedTypes?.createPolicy("appmux-worker", {
  createScriptURL: (url: string) => {
    if (url !== "/worker.js") throw new TypeError("only our own worker");
    return url;
  },
});

export async function startWorker(): Promise<ServiceWorkerRegistration | null> {
  if (!("serviceWorker" in navigator) || !isSecureContext) return null;
  const url = (policy?.createScriptURL("/worker.js") ?? "/worker.js") as string;
  navigator.serviceWorker.addEventListener("message", (event) => {
    if (event.data?.go) go(String(event.data.go));
  });
  try {
    return await navigator.serviceWorker.register(url, { updateViaCache: "none" });
  } catch {
    return null;
  }
}
