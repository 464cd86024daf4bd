// What one sets: push on this device, what is told, how the page looks, and the way out.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { liveRpc, signOut } from "../connection/runtime.ts";
import { isOn, type Level, levelNow, obstacle, turnOff, turnOn } from "../push/push.ts";
import { back } from "../route.ts";
import { change, settings } from "../settings.ts";
import { cantAct, device, identity, inbox, phase, say, sayError } from "../state.ts";
import { IconButton, Segmented, Sheet, Strange } from "./parts.tsx";
import { hostName } from "./status.tsx";

export function SettingsView(): JSX.Element {
  return (
    <section class="page" aria-label="Settings">
      <header class="bar">
        <IconButton icon="back" label="Back" class="only-narrow" onClick={back} />
        <div class="bar-title">
          <h1>Settings</h1>
        </div>
      </header>
      <div class="page-body">
        <Push />
        {phase.value === "live" && <Told />}
        <Looks />
        <About />
      </div>
    </section>
  );
}

const LEVELS = [
  { value: "opaque", label: "Nothing" },
  { value: "title", label: "Title" },
  { value: "full", label: "All" },
] as const;

const REVEALS: Record<Level, string> = {
  opaque: "A notice only says that something waits.",
  title: "A notice shows the thread’s title.",
  full: "A notice shows the command or the last line, also on the lock screen.",
};

function Push(): JSX.Element {
  const [on, setOn] = useState<boolean | null>(null);
  const [level, setLevel] = useState<Level>("opaque");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    void isOn().then(setOn);
    void levelNow().then(setLevel);
  }, []);
  const wall = obstacle();
  const run = async (work: () => Promise<void>): Promise<void> => {
    setBusy(true);
    try {
      await work();
    } catch (failure) {
      sayError(failure);
    }
    setOn(await isOn());
    setBusy(false);
  };
  return (
    <section class="card pad">
      <h2>Push on this device</h2>
      {wall ? (
        <p class="quiet">
          {wall.why} <strong>{wall.todo}</strong>
        </p>
      ) : (
        <>
          <p class="quiet">
            {on ? "On. You are told when something needs you and nobody is looking." : "Off. This device is told nothing while the page is closed."}
          </p>
          <div class="stack">
            {on ? (
              <>
                <button
                  type="button"
                  class="button wide"
                  disabled={busy || !!cantAct.value}
                  onClick={() =>
                    void run(async () => {
                      await liveRpc().request("mux/notices/test", {});
                      say("A test is on its way.");
                    })
                  }
                >
                  Send a test
                </button>
                <button type="button" class="button wide" disabled={busy || !!cantAct.value} onClick={() => void run(turnOff)}>
                  Turn off
                </button>
              </>
            ) : (
              <button
                type="button"
                class="button primary wide"
                disabled={busy || on === null || !!cantAct.value}
                onClick={() => void run(() => turnOn(level))}
              >
                Turn on
              </button>
            )}
          </div>
          <h3>What a notice shows</h3>
          <Segmented
            label="What a notice shows"
            value={level}
            options={LEVELS}
            onChange={(next) => {
              setLevel(next);
              if (on) void run(() => turnOn(next));
            }}
          />
          <p class="quiet">{REVEALS[level]}</p>
        </>
      )}
    </section>
  );
}

interface Rule {
  mode: "on" | "off" | "quiet";
  threadId: string | null;
  kind: string | null;
  start: string | null;
  end: string | null;
  timeZone: string | null;
  until: string | null;
}

const KINDS: Record<string, string> = {
  approval: "Approvals",
  question: "Questions",
  "turn-completed": "A long turn is done",
  "turn-interrupted": "A long turn was interrupted",
  "turn-failed": "A turn failed",
  "goal-reached": "A goal is reached",
  "goal-blocked": "A goal is blocked",
  "usage-limit": "The usage limit is reached",
  "app-server-down": "Codex doesn’t start any more",
  "app-server-back": "Codex is back",
  "approval-lost": "An approval was lost",
};

function Told(): JSX.Element | null {
  const [rules, setRules] = useState<Rule[] | null>(null);
  const [kinds, setKinds] = useState<string[]>([]);
  useEffect(() => {
    liveRpc()
      .request("mux/notices/settings/read", {})
      .then((said) => {
        setRules(said.rules);
        setKinds(said.kinds);
      })
      .catch(() => undefined);
  }, []);
  if (!rules) return null;
  const write = (next: Rule[]): void => {
    setRules(next);
    Promise.resolve()
      .then(() => liveRpc().request("mux/notices/settings/write", { rules: next }))
      .catch(sayError);
  };
  const isKind = (rule: Rule, kind: string): boolean =>
    rule.threadId === null && rule.kind === kind && rule.mode !== "quiet";
  const isQuiet = (rule: Rule): boolean => rule.mode === "quiet" && rule.threadId === null && rule.kind === null;
  const off = (kind: string): boolean => rules.findLast((each) => isKind(each, kind))?.mode === "off";
  const quiet = rules.find(isQuiet);
  const rule = (what: Partial<Rule>): Rule => ({
    mode: "off", threadId: null, kind: null, start: null, end: null, timeZone: null, until: null, ...what,
  });
  const setQuiet = (start: string, end: string): void => {
    const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    write([...rules.filter((each) => !isQuiet(each)), rule({ mode: "quiet", start, end, timeZone })]);
  };
  return (
    <section class="card pad">
      <h2>Be told of</h2>
      {kinds.map((kind) => (
        <label key={kind} class="check wide">
          <input
            type="checkbox"
            checked={!off(kind)}
            disabled={!!cantAct.value}
            onChange={(event) => {
              const rest = rules.filter((each) => !isKind(each, kind));
              write([...rest, rule({ kind, mode: event.currentTarget.checked ? "on" : "off" })]);
            }}
          />
          <span>{KINDS[kind] ?? kind}</span>
        </label>
      ))}
      <h3>Quiet hours</h3>
      <label class="check wide">
        <input
          type="checkbox"
          checked={!!quiet}
          disabled={!!cantAct.value}
          onChange={(event) =>
            event.currentTarget.checked ? setQuiet("22:00", "07:00") : write(rules.filter((each) => !isQuiet(each)))
          }
        />
        <span>Nothing is told at night</span>
      </label>
      {quiet && (
        <div class="two">
          <label class="field">
            <span>From</span>
            <input type="time" value={quiet.start ?? ""} onChange={(event) => setQuiet(event.currentTarget.value, quiet.end ?? "07:00")} />
          </label>
          <label class="field">
            <span>To</span>
            <input type="time" value={quiet.end ?? ""} onChange={(event) => setQuiet(quiet.start ?? "22:00", event.currentTarget.value)} />
          </label>
        </div>
      )}
    </section>
  );
}

function Looks(): JSX.Element {
  const { textSize, theme, hideTexts } = settings.value;
  return (
    <section class="card pad">
      <h2>This page</h2>
      <h3>Text</h3>
      <Segmented
        label="Text size"
        value={textSize}
        options={[
          { value: "100", label: "Normal" },
          { value: "115", label: "Larger" },
          { value: "130", label: "Largest" },
        ]}
        onChange={(value) => change({ textSize: value })}
      />
      <h3>Colours</h3>
      <Segmented
        label="Colours"
        value={theme}
        options={[
          { value: "system", label: "As the system" },
          { value: "light", label: "Light" },
          { value: "dark", label: "Dark" },
        ]}
        onChange={(value) => change({ theme: value })}
      />
      <label class="check wide">
        <input
          type="checkbox"
          checked={hideTexts}
          onChange={(event) => change({ hideTexts: event.currentTarget.checked })}
        />
        <span>
          Blur texts until they are touched <span class="quiet">for a screen that others see</span>
        </span>
      </label>
    </section>
  );
}

function About(): JSX.Element {
  const [asking, setAsking] = useState(false);
  const who = identity.value;
  const { appServer } = inbox.value;
  return (
    <section class="card pad">
      <h2>About</h2>
      <dl class="facts">
        <div>
          <dt>host</dt>
          <dd>
            <Strange text={hostName()} />
          </dd>
        </div>
        <div>
          <dt>device</dt>
          <dd>
            <Strange text={who?.name ?? device.value?.name ?? ""} />
          </dd>
        </div>
        <div>
          <dt>may</dt>
          <dd>{(who?.scopes ?? device.value?.scopes ?? []).join(", ")}</dd>
        </div>
        <div>
          <dt>appmux</dt>
          <dd>
            {who?.version ?? "unknown"} <span class="quiet">(this page: {__VERSION__})</span>
          </dd>
        </div>
        <div>
          <dt>codex</dt>
          <dd>
            {appServer.version ?? "unknown"} <span class="quiet">{appServer.state}</span>
          </dd>
        </div>
      </dl>
      <p class="quiet">
        What is wrong with the host says <code>appmux doctor</code>, in a terminal there.
      </p>
      <div class="stack">
        <a class="button wide" href="/reset">
          Start afresh …
        </a>
        <button type="button" class="button danger wide" disabled={!!cantAct.value} onClick={() => setAsking(true)}>
          Sign out
        </button>
      </div>
      {asking && (
        <Sheet title="Sign out" onClose={() => setAsking(false)}>
          <p>
            The host forgets this device, and everything kept here is removed: drafts, and messages
            that wait. To come back it has to be paired again.
          </p>
          <button type="button" class="button danger wide" onClick={() => void signOut().catch(sayError)}>
            Sign out
          </button>
        </Sheet>
      )}
    </section>
  );
}
