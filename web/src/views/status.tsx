// The state of the connection, in words.

import type { JSX } from "preact";
import { wake } from "../connection/runtime.ts";
import { newer, reloadPage } from "../push/worker-registration.ts";
import { endedWhy, identity, inbox, inboxKept, outdated, phase, phaseSince } from "../state.ts";
import { ago, clock } from "./format.ts";
import { now } from "./parts.tsx";

export function hostName(): string {
  return identity.value?.host || inbox.value.host || location.hostname;
}

export function connectionWords(): string {
  switch (phase.value) {
    case "live":
      return inbox.value.appServer.state && inbox.value.appServer.state !== "ready"
        ? `live, but codex is ${inbox.value.appServer.state}`
        : "live";
    case "catchingUp":
      return "catching up";
    case "connecting":
      return "connecting";
    case "offline":
      return `offline since ${clock(phaseSince.value)}`;
    case "signedOut":
      return "signed out";
  }
}

export function ConnectionState(): JSX.Element {
  return (
    <span class={`state state-${phase.value}`} role="status">
      <span class="dot" aria-hidden="true" />
      {connectionWords()}
    </span>
  );
}

/** Says loudly what is not the present. */
export function Banner(): JSX.Element | null {
  if (outdated.value) {
    return (
      <div class="banner warn" role="alert">
        <span>The broker was changed: this page only shows until it is reloaded.</span>
        <button type="button" class="button small" onClick={() => void reloadPage()}>
          Reload
        </button>
      </div>
    );
  }
  if (newer.value) {
    return (
      <div class="banner">
        <span>A newer version of this page is ready.</span>
        <button type="button" class="button small" onClick={() => void reloadPage()}>
          Reload
        </button>
      </div>
    );
  }
  if (phase.value !== "offline") return null;
  if (endedWhy.value) {
    return (
      <div class="banner" role="alert">
        <span>This address has ended: {endedWhy.value}</span>
      </div>
    );
  }
  const age = inboxKept.value && inbox.value.at ? ` What is shown is from ${ago(inbox.value.at, now.value)}.` : "";
  return (
    <div class="banner">
      <span>
        Offline since {clock(phaseSince.value)}.{age}
      </span>
      <button type="button" class="button small" onClick={wake}>
        Try now
      </button>
    </div>
  );
}
