/// <reference lib="webworker" />
// The service worker: keeps the shell, shows pushes, takes what is shared. It holds no key and no
// connection; a push's ticket is all that it can answer with.

import { createStore, set, update } from "idb-keyval";

declare const self: ServiceWorkerGlobalScope;
declare const __FILES__: string[];
declare const __BUILD__: string;

const SHELL = `appmux-shell-${__BUILD__}`;

self.addEventListener("install", (event) => {
  // All of it or nothing: a half-kept page would break where it is needed most.
  event.waitUntil(
    caches.open(SHELL).then((cache) =>
      cache.addAll(__FILES__.map((each) => new Request(each, { cache: "reload" }))),
    ),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith("appmux-shell-") && name !== SHELL) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("message", (event) => {
  if (event.data === "take-over") void self.skipWaiting();
});

// -- the shell -------------------------------------------------------------------------------------

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== location.origin) return;
  if (request.method === "POST" && url.pathname === "/share") {
    event.respondWith(takeShared(request));
    return;
  }
  if (request.method !== "GET" || url.pathname.startsWith("/v1/")) return;
  if (url.pathname === "/reset" || url.pathname === "/reset.js") return;
  if (request.mode === "navigate") event.respondWith(shell(request));
  else if (__FILES__.includes(url.pathname)) event.respondWith(kept(request, url.pathname));
});

async function shell(request: Request): Promise<Response> {
  return (await (await caches.open(SHELL)).match("/")) ?? fetch(request);
}

async function kept(request: Request, path: string): Promise<Response> {
  return (await (await caches.open(SHELL)).match(path)) ?? fetch(request);
}

// -- what is shared --------------------------------------------------------------------------------

async function takeShared(request: Request): Promise<Response> {
  const form = await request.formData();
  const texts = ["title", "text", "url"].map((name) => form.get(name)).filter((each) => each);
  const files = form.getAll("files").filter((each) => each instanceof File);
  const shared = { text: [...new Set(texts)].join("\n"), files };
  await set("shared", shared, createStore("appmux", "page"));
  return Response.redirect("/share", 303);
}

// -- pushes ----------------------------------------------------------------------------------------

interface Told {
  id: string;
  kind: string;
  collapse: string;
  count: number;
  /** All that waits at this device, for the app's badge. */
  badge?: number;
  title?: string;
  body?: string;
  urgent?: boolean;
  withdraw?: boolean;
  ticket?: string;
  actions?: string[];
}

const WORDS: Record<string, string> = {
  approval: "An approval waits",
  question: "A question waits",
  completed: "A turn has completed",
  failed: "A turn has failed",
  interrupted: "A turn was interrupted",
  goal: "News of a goal",
  limit: "The usage limit is reached",
  down: "Codex is down",
  back: "Codex is back",
  moved: "The host has another name: pair again",
  test: "A test of appmux",
};

const LABELS: Record<string, string> = { approve: "Approve", decline: "Decline" };

self.addEventListener("push", (event) => {
  event.waitUntil(show(read(event)));
});

function read(event: PushEvent): Told {
  const none = { id: "", kind: "", collapse: "appmux", count: 1 };
  try {
    const document = event.data!.json();
    // The declarative form carries what is for the worker beside what the browser shows itself.
    return { ...none, ...(document.notification?.data ?? document) };
  } catch {
    return none;
  }
}

async function show(told: Told): Promise<void> {
  if (told.withdraw) {
    await withdrawn(told);
    return;
  }
  const heading = told.title ?? WORDS[told.kind] ?? "Something waits";
  const line = told.body ?? (told.title ? (WORDS[told.kind] ?? "") : told.count > 1 ? `${told.count} things wait` : "");
  const options: NotificationOptions & { actions?: unknown[]; renotify?: boolean } = {
    body: line,
    tag: told.collapse,
    renotify: true,
    icon: "/icon-192.png",
    badge: "/icon-192.png",
    data: { id: told.id, ticket: told.ticket },
    requireInteraction: told.urgent === true,
  };
  if (told.ticket) {
    options.actions = (told.actions ?? []).map((action) => ({ action, title: LABELS[action] ?? action }));
  }
  await self.registration.showNotification(heading, options);
  await badge(told.badge ?? told.count);
  // The page tells the broker, with its next connection, that this has come.
  if (told.id) {
    const more = (before: string[] = []): string[] => [...before, told.id].slice(-TOLD_BACK);
    await update("received", more, createStore("appmux", "page"));
  }
}

/** Pushes that the broker is told of at once, at most: as many as it takes. */
const TOLD_BACK = 64;

/** What was told is over: it is replaced in silence, as a push has to show something. */
async function withdrawn(told: Told): Promise<void> {
  const shown = await self.registration.getNotifications({ tag: told.collapse });
  if (shown.length) {
    await self.registration.showNotification("Decided", {
      body: "Nothing is left to do here.",
      tag: told.collapse,
      silent: true,
      icon: "/icon-192.png",
      data: { id: told.id },
    });
    for (const each of await self.registration.getNotifications({ tag: told.collapse })) each.close();
  }
  await badge(told.badge ?? told.count);
}

async function badge(count: number): Promise<void> {
  const own = navigator as { setAppBadge?: (count: number) => Promise<void> };
  await own.setAppBadge?.(count).catch(() => undefined);
}

self.addEventListener("notificationclick", (event) => {
  const { id, ticket } = event.notification.data ?? {};
  event.notification.close();
  const answer = event.action;
  if ((answer === "approve" || answer === "decline") && ticket) {
    event.waitUntil(decide(id, ticket, answer, event.notification.tag));
  } else {
    event.waitUntil(open(id ? `/?notice=${encodeURIComponent(id)}` : "/"));
  }
});

async function decide(id: string, ticket: string, answer: string, tag: string): Promise<void> {
  let said = "";
  try {
    const response = await fetch(`/v1/approvals/${encodeURIComponent(id)}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ answer, ticket }),
    });
    const result = await response.json();
    if (response.ok && result.decided) return;
    said = response.ok ? `It waits for ${result.waitsFor}.` : String(result.message);
  } catch {
    said = "The host couldn’t be reached. Open the page to answer.";
  }
  await self.registration.showNotification("Not decided yet", {
    body: said,
    tag,
    icon: "/icon-192.png",
    data: { id },
  });
}

async function open(path: string): Promise<void> {
  const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const found = windows.find((each) => each.visibilityState === "visible") ?? windows[0];
  if (!found) {
    await self.clients.openWindow(path);
    return;
  }
  await found.focus();
  found.postMessage({ go: path });
}
