// The start of the page: who is this browser, where is one, and what is shown.

import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { reachEarly, reachNobody } from "./connection/connect.ts";
import { forgetNoted, notedDevice, thisDevice } from "./connection/device.ts";
import { type Invitation, readInvitation } from "./connection/invitation.ts";
import { rpc, showKept, start } from "./connection/runtime.ts";
import { startWorker } from "./push/worker-registration.ts";
import { go, route, startRouting, threadPath } from "./route.ts";
import { device, inbox, phase, say, sayError, toasts } from "./state.ts";
import { applySettings } from "./settings.ts";
import { keptUnder } from "./storage/store.ts";
import { looking } from "./threads/files.ts";
import { titleOf } from "./threads/inbox.ts";
import { plain } from "./views/format.ts";
import { InboxView } from "./views/inbox.tsx";
import { lazy } from "./views/parts.tsx";
import { hostName } from "./views/status.tsx";

const ThreadView = lazy(async () => (await import("./views/thread.tsx")).ThreadView);
const ReviewView = lazy(async () => (await import("./views/review.tsx")).ReviewView);
const NewView = lazy(async () => (await import("./views/begin.ts")).NewView);
const PeopleView = lazy(async () => (await import("./views/people.tsx")).PeopleView);
const SettingsView = lazy(async () => (await import("./views/settings.tsx")).SettingsView);
const ShareView = lazy(async () => (await import("./views/begin.ts")).ShareView);
const PairView = lazy(async () => (await import("./views/pair.tsx")).PairView);
const Files = lazy(async () => (await import("./views/file.tsx")).Files);
const BecomeView = lazy(async () => (await import("./views/become.tsx")).BecomeView);

function App({ ticket }: { ticket: Invitation | null }): JSX.Element {
  const [other, setOther] = useState(ticket);
  const known = device.value;
  useEffect(() => {
    // A link that is opened while the page is open changes nothing but the fragment.
    const look = (): void => {
      const found = takeTicket();
      if (found) setOther(found);
    };
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  useEffect(() => {
    document.body.classList.toggle("paired", !!known);
  }, [known]);
  if (known === undefined) return <main class="boot" />;
  if (known === null) return <PairView key={JSON.stringify(other)} by={other} onPaired={() => setOther(null)} />;
  if (other) return <BecomeView by={other} onStay={() => setOther(null)} />;
  const at = route.value;
  // On a narrow screen one pane is shown at a time.
  const alone = at.view === "inbox" && narrow.value;
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <div class={`panes at-${at.view}`}>
        <div
          class="pane-inbox"
          role={alone ? "main" : undefined}
          id={alone ? "content" : undefined}
          tabIndex={-1}
        >
          <InboxView />
        </div>
        <div
          class="pane-main"
          role={alone ? undefined : "main"}
          id={alone ? undefined : "content"}
          tabIndex={-1}
        >
          <Main />
        </div>
      </div>
      {looking.value && <Files at={looking.value} />}
      <Toasts />
    </>
  );
}

function Main(): JSX.Element {
  const { view, thread } = route.value;
  if (view === "thread" && thread) return <ThreadView key={thread} id={thread} />;
  if (view === "review" && thread) return <ReviewView key={thread} id={thread} />;
  if (view === "new") return <NewView />;
  if (view === "people") return <PeopleView />;
  if (view === "settings") return <SettingsView />;
  if (view === "share") return <ShareView />;
  return <p class="quiet centered nothing-open">Choose a thread, or begin a new one.</p>;
}

function Toasts(): JSX.Element {
  return (
    <div class="toasts" aria-live="polite">
      {toasts.value.map((each) => (
        <p key={each.id} class={`toast ${each.kind}`} role={each.kind === "error" ? "alert" : undefined}>
          {each.text}
        </p>
      ))}
    </div>
  );
}

/** The number of things that wait stands in the title and on the app's badge. */
function showCount(): void {
  const { view, thread } = route.value;
  const waiting = inbox.value.needs.size;
  const row = thread ? inbox.value.threads.get(thread) : undefined;
  const name = view === "thread" || view === "review" ? plain(titleOf(row)) : plain(hostName());
  document.title = `${waiting ? `(${waiting}) ` : ""}${name} – appmux`;
  if (phase.value !== "live") return;
  const done = waiting ? navigator.setAppBadge?.(waiting) : navigator.clearAppBadge?.();
  done?.catch(() => undefined);
}

/** A notice was tapped: what it is about, the broker says, when there is a connection. */
function followNotice(): void {
  const id = new URLSearchParams(route.value.search).get("notice");
  if (!id || phase.value !== "live") return;
  go("/", true);
  rpc()!
    .request("mux/notices/read", { id })
    .then((notice) => {
      if (notice.threadId) go(threadPath(notice.threadId));
      if (notice.overWhy) say(`Over already: ${notice.overWhy}.`);
    })
    .catch(sayError);
}

const wide = matchMedia("(min-width: 56rem)");
const narrow = signal(!wide.matches);
wide.addEventListener("change", () => (narrow.value = !wide.matches));

/** The ticket in the address, which is taken out of it at once. */
function takeTicket(): Invitation | null {
  const ticket = readInvitation(location.hash);
  if (ticket) history.replaceState(null, "", location.pathname + location.search);
  return ticket;
}

/** What was on its way to the host when the page was put away goes on. */
async function goOnWithUploads(): Promise<void> {
  if ((await keptUnder("upload/")).length) await (await import("./composer/uploads.ts")).restoreUploads();
}

async function begin(): Promise<void> {
  applySettings();
  const ticket = takeTicket();
  startRouting();
  const noted = notedDevice();
  const reading = thisDevice();
  if (noted) {
    reachEarly();
    device.value = noted;
    // The first thing that is drawn has the rows in it.
    showKept();
    draw(ticket);
  }
  const known = await reading;
  device.value = known ?? null;
  if (!noted) draw(ticket);
  if (known) void start(known).then(goOnWithUploads);
  else {
    // What was noted was of a key that has gone.
    reachNobody();
    forgetNoted();
  }
  startWorkerLater();
}

function draw(ticket: Invitation | null): void {
  const root = document.getElementById("app")!;
  root.replaceChildren();
  render(<App ticket={ticket} />, root);
  effect(showCount);
  effect(followNotice);
}

/** Without a connection the worker begins after so long. */
const WORKER_MS = 3_000;

/** The worker fetches all files of the page: not before the inbox, which a slow link would notice. */
function startWorkerLater(): void {
  let begun = false;
  const begin = (): void => {
    if (!begun) void startWorker();
    begun = true;
  };
  setTimeout(begin, WORKER_MS);
  effect(() => {
    if (phase.value === "live") setTimeout(begin);
  });
}

void begin();
