// How this browser is let in: by a link, by letters, by a picture of the code.

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import {
  abandonPairing,
  awaitPairing,
  beginPairing,
  canHaveKey,
  type Device,
  type Pairing,
  pairingUnderWay,
  Refused,
} from "../connection/device.ts";
import { type Invitation, readInvitation } from "../connection/invitation.ts";
import { start } from "../connection/runtime.ts";
import { lazy } from "./parts.tsx";
import { defaultName, standalone } from "./platform.ts";

const Scanner = lazy(async () => (await import("./scanner.tsx")).Scanner);

export function PairView(props: {
  by: Invitation | null;
  /** The ticket has been used up. */
  onPaired: () => void;
}): JSX.Element {
  const { by } = props;
  const [pairing, setPairing] = useState<Pairing | null>(null);
  const [trouble, setTrouble] = useState("");
  const [scanning, setScanning] = useState(false);
  const abort = useRef<AbortController | null>(null);

  const run = async (under: Pairing): Promise<void> => {
    abort.current?.abort();
    abort.current = new AbortController();
    setPairing(under);
    try {
      const device: Device = await awaitPairing(under, abort.current.signal);
      props.onPaired();
      await start(device);
    } catch (failure) {
      if (abort.current.signal.aborted) return;
      setPairing(null);
      setTrouble(refusal(failure as Error));
    }
  };
  const begin = async (with_: Invitation, name: string): Promise<void> => {
    setTrouble("");
    setScanning(false);
    await run(await beginPairing(with_, name));
  };
  useEffect(() => {
    if (!by) void pairingUnderWay().then((under) => under && run(under));
    return () => abort.current?.abort();
  }, []);

  if (!canHaveKey()) return <NoKey />;
  return (
    <main class="boot pair">
      <Logo />
      {pairing ? (
        <Waiting
          pairing={pairing}
          onStop={() => {
            abort.current?.abort();
            void abandonPairing();
            setPairing(null);
          }}
        />
      ) : scanning ? (
        <Scanner
          onFound={(text: string) => {
            const found = readInvitation(text);
            if (found) void begin(found, defaultName());
            else {
              setScanning(false);
              setTrouble("That isn’t a code of appmux.");
            }
          }}
          onStop={() => setScanning(false)}
        />
      ) : (
        <Ask by={by} trouble={trouble} onBegin={begin} onScan={() => setScanning(true)} />
      )}
    </main>
  );
}

function Logo(): JSX.Element {
  return <img class="logo" src="/icon.svg" width="72" height="72" alt="" />;
}

function Ask(props: {
  by: Invitation | null;
  trouble: string;
  onBegin: (by: Invitation, name: string) => Promise<void>;
  onScan: () => void;
}): JSX.Element {
  const [typed, setTyped] = useState("");
  const [name, setName] = useState(defaultName());
  const [wrong, setWrong] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    const by = props.by ?? readInvitation(typed);
    if (by) void props.onBegin(by, name.trim() || defaultName());
    else setWrong("Eight letters, or the whole link.");
  };
  return (
    <form onSubmit={submit}>
      <h1>{props.by ? "Pair this browser" : "This browser isn’t paired"}</h1>
      <p class="quiet">
        {props.by
          ? "It gets a key of its own, which can’t leave it. If a code is shown next, compare it with the terminal’s."
          : standalone()
            ? "The installed app has a storage of its own, so it is paired by itself. In a terminal of the host:"
            : "In a terminal of the host:"}
      </p>
      {!props.by && <pre class="say">appmux pair --page</pre>}
      {props.trouble && (
        <p class="trouble" role="alert">
          {props.trouble}
        </p>
      )}
      {!props.by && (
        <label class="field">
          <span>The eight letters that it shows, or its link</span>
          <input
            type="text"
            autocomplete="off"
            autocapitalize="characters"
            spellcheck={false}
            placeholder="ABCD EFGH"
            value={typed}
            aria-invalid={wrong !== ""}
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
          {wrong && <span class="trouble">{wrong}</span>}
        </label>
      )}
      <label class="field">
        <span>This device’s name</span>
        <input
          type="text"
          autocomplete="off"
          maxLength={64}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
      <div class="stack">
        <button type="submit" class="button primary wide">
          Pair
        </button>
        {!props.by && (
          <button type="button" class="button wide" onClick={props.onScan}>
            Scan the QR code
          </button>
        )}
      </div>
    </form>
  );
}

function Waiting({ pairing, onStop }: { pairing: Pairing; onStop: () => void }): JSX.Element {
  return (
    <section aria-live="polite">
      <h1>Compare this code</h1>
      <p class="quiet">The terminal shows it too. If both are the same, say yes there.</p>
      <p class="code">{pairing.code}</p>
      <p class="quiet">
        Waiting for the operator. This phone may lock meanwhile; nothing is called off by that.
      </p>
      <button type="button" class="button wide" onClick={onStop}>
        Stop
      </button>
    </section>
  );
}

function NoKey(): JSX.Element {
  const [secure, setSecure] = useState<string | null>(null);
  useEffect(() => {
    fetch("/v1/https.json")
      .then((answer) => answer.json())
      .then(({ page }) => setSecure(page))
      .catch(() => undefined); // then it is said how to get one
  }, []);
  return (
    <main class="boot pair">
      <Logo />
      <h1>https is needed</h1>
      <p class="quiet">
        Over plain http a browser keeps no key and no app.{" "}
        {secure ? (
          <>
            Open <a href={secure}>{secure}</a>
          </>
        ) : (
          <>
            Have the host set it up: <code>appmux tailnet enable</code> gets a certificate on a
            Tailnet.
          </>
        )}
      </p>
    </main>
  );
}

function refusal(failure: Error): string {
  if (!(failure instanceof Refused)) return failure.message;
  const known: Record<string, string> = {
    "unknown-ticket": "That code isn’t known. It may be mistyped, or too old.",
    "expired-ticket": "That code is too old: have a new one shown.",
    "used-ticket": "That code was used already: have a new one shown.",
    declined: "The operator declined.",
    unanswered: "Nobody decided in time: have a new code shown.",
    "called-off": "The operator called it off.",
    "too-many": "Too many tries: have a new code shown.",
  };
  return known[failure.reason] ?? failure.message;
}
