// What happened on a thread since one looked, as the broker reads it off its journal.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { decided, plainCommand } from "../approvals/requests.ts";
import { personOf } from "../people.ts";
import { rpc } from "../connection/runtime.ts";
import { keep, kept } from "../storage/store.ts";
import type { Cursor } from "../wire.ts";
import { Counts } from "./diff.tsx";
import { count, lasted } from "./format.ts";
import { Sheet, Strange } from "./parts.tsx";

export function Digest(props: { id: string; epoch: string | null; onClose: () => void }): JSX.Element {
  const [said, setSaid] = useState<any>(null);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    void (async () => {
      const key = `looked/${props.id}`;
      const after = (await kept<Cursor>(key)) ?? null;
      try {
        const params = { threadId: props.id, after: after?.epoch === props.epoch ? after : null };
        const answer = await rpc()!.request("mux/thread/digest", params);
        setSaid(answer);
        await keep(key, { epoch: answer.epoch, seq: answer.seq });
      } catch (failure) {
        setTrouble((failure as Error).message);
      }
    })();
  }, []);
  return (
    <Sheet title="Since you looked" onClose={props.onClose}>
      {trouble && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      {!said && !trouble && <p class="quiet">Reading …</p>}
      {said && <Told said={said} />}
    </Sheet>
  );
}

function Told({ said }: { said: any }): JSX.Element {
  const nothing = !said.turns.length && !said.files.length && !said.decisions.length;
  if (nothing) return <p class="quiet">Nothing happened.</p>;
  return (
    <div class="digest">
      {!said.complete && <p class="quiet">The journal doesn’t reach back that far: this is what it still has.</p>}
      <h3>{count(said.turns.length, "turn")}</h3>
      <ul>
        {said.turns.map((each: any) => (
          <li key={each.id}>
            <strong>
              <Strange text={each.said || "…"} />
            </strong>
            <span class={each.status === "failed" ? "bad" : "quiet"}>
              {each.status === "inProgress" ? "running" : each.status}
              {each.by && ` · ${personOf(each.by)}`}
              {each.seconds !== null && each.seconds >= 1 && ` · ${lasted(each.seconds * 1000)}`}
            </span>
            {(each.error || each.lastLine) && (
              <span class="row-line">
                <Strange text={each.error || each.lastLine} />
              </span>
            )}
          </li>
        ))}
      </ul>
      {said.files.length > 0 && (
        <>
          <h3>{count(said.files.length, "file")} changed</h3>
          <ul>
            {said.files.map((each: any) => (
              <li key={each.path}>
                <Strange text={each.path} /> <Counts added={each.added} removed={each.removed} />
              </li>
            ))}
          </ul>
        </>
      )}
      {said.commands.ran > 0 && (
        <>
          <h3>
            {count(said.commands.ran, "command")}, {said.commands.failed.length} failed
          </h3>
          <ul>
            {said.commands.failed.map((each: any, index: number) => (
              <li key={index}>
                <code>
                  <Strange text={plainCommand(each.command)} />
                </code>
                <span class="bad">exit {each.exitCode ?? "?"}</span>
                <span class="row-line mono">
                  <Strange text={each.lastLine ?? ""} />
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
      {said.decisions.length > 0 && (
        <>
          <h3>Decided</h3>
          <ul>
            {said.decisions.map((each: any) => (
              <li key={each.id}>
                <Strange text={each.about ?? ""} />: {decided(each.decision)}
                {each.by && ` by ${personOf(each.by)}`}
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  );
}
