// Lets another device in: a QR code, the letters, and the comparison of codes.

import encodeQR from "qr";
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { hearAlso, liveRpc } from "../connection/runtime.ts";
import { say, sayError } from "../state.ts";
import { Segmented, Sheet, Strange } from "./parts.tsx";

type Kind = "watch" | "approve" | "write";

const KINDS: Record<Kind, string[]> = {
  watch: ["observe"],
  approve: ["observe", "approve"],
  write: ["observe", "approve", "drive"],
};

export function Invite({ onClose }: { onClose: () => void }): JSX.Element {
  const [kind, setKind] = useState<Kind>("write");
  const [begun, setBegun] = useState<any>(null);
  const [asked, setAsked] = useState<any>(null);
  const begin = async (): Promise<void> => {
    try {
      setBegun(await liveRpc().request("mux/pairing/begin", { scopes: KINDS[kind], letters: true }));
    } catch (failure) {
      sayError(failure);
    }
  };
  useEffect(
    () =>
      hearAlso((message) => {
        const { method, params } = message;
        if (!begun || params?.id !== begun.id) return;
        if (method === "mux/pairing/asked") setAsked(params);
        if (method === "mux/pairing/ended" && params.outcome !== "again") {
          if (params.outcome === "paired") say(`${params.name ?? "It"} was let in.`);
          else say(`It wasn’t let in: ${params.outcome}.`, "error");
          onClose();
        }
      }),
    [begun],
  );
  const confirm = (accept: boolean): void => {
    Promise.resolve()
      .then(() => liveRpc().request("mux/pairing/confirm", { id: begun.id, accept }))
      .catch(sayError);
  };
  return (
    <Sheet title="Invite a device" onClose={onClose}>
      {!begun ? (
        <>
          <p class="quiet">What may it do?</p>
          <Segmented
            label="What it may"
            value={kind}
            options={[
              { value: "watch", label: "Watch" },
              { value: "approve", label: "Approve" },
              { value: "write", label: "Write" },
            ]}
            onChange={setKind}
          />
          <button type="button" class="button primary wide" onClick={() => void begin()}>
            Show the code
          </button>
        </>
      ) : asked ? (
        <section aria-live="polite">
          <p>
            <strong>
              <Strange text={asked.name || "A device"} />
            </strong>{" "}
            <span class="quiet">from {asked.from}</span> shows this code:
          </p>
          <p class="code">{asked.code}</p>
          <div class="answers-first">
            <button type="button" class="button primary" onClick={() => confirm(true)}>
              The same: let it in
            </button>
            <button type="button" class="button answer-no" onClick={() => confirm(false)}>
              Another one
            </button>
          </div>
        </section>
      ) : (
        <Shown ticket={begun.ticket} letters={begun.letters} />
      )}
    </Sheet>
  );
}

function Shown({ ticket, letters }: { ticket: string; letters?: string }): JSX.Element {
  const link = `${location.origin}/#pair=${ticket}`;
  const cells = encodeQR(link, "raw", { ecc: "medium", border: 3 }) as boolean[][];
  const path = cells
    .flatMap((row, y) => row.map((on, x) => (on ? `M${x} ${y}h1v1h-1z` : "")))
    .join("");
  return (
    <section>
      <svg class="qr" viewBox={`0 0 ${cells.length} ${cells.length}`} role="img" aria-label="QR code of the link">
        <rect width="100%" height="100%" fill="#fff" />
        <path d={path} fill="#000" shape-rendering="crispEdges" />
      </svg>
      {letters && (
        <>
          <p class="quiet centered">or type, in the app</p>
          <p class="code letters">{`${letters.slice(0, 4)} ${letters.slice(4)}`}</p>
        </>
      )}
      <p class="quiet centered">Good for five minutes, once. You will compare a code before it is let in.</p>
    </section>
  );
}
