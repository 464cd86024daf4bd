// Where one is, by the address. Plain paths, so that a link to a thread can be given away.

import { computed, signal } from "@preact/signals";

export interface Route {
  view: "inbox" | "thread" | "review" | "new" | "people" | "settings" | "share";
  thread: string | null;
  search: string;
}

export function parse(path: string, search = ""): Route {
  const [first, second, third] = path.split("/").filter(Boolean);
  if (first === "t" && second) {
    return { view: third === "review" ? "review" : "thread", thread: decodeURIComponent(second), search };
  }
  const known = ["new", "people", "settings", "share"] as const;
  const view = known.find((each) => each === first) ?? "inbox";
  return { view, thread: null, search };
}

export const route = signal<Route>({ view: "inbox", thread: null, search: "" });

/** The thread in the foreground. */
export const open = computed(() => route.value.thread);

/** How many steps of ours lie behind: where "back" leads nowhere of ours it leads to the inbox. */
let steps = 0;

export function go(path: string, replace = false): void {
  if (replace) history.replaceState(null, "", path);
  else {
    history.pushState(null, "", path);
    steps++;
  }
  route.value = parse(location.pathname, location.search);
  scrollTo(0, 0);
}

export function back(): void {
  if (steps > 0) history.back();
  else go("/", true);
}

export function startRouting(): void {
  route.value = parse(location.pathname, location.search);
  addEventListener("popstate", () => {
    steps = Math.max(0, steps - 1);
    route.value = parse(location.pathname, location.search);
  });
}

export const threadPath = (id: string): string => `/t/${encodeURIComponent(id)}`;
