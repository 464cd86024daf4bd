// Who is here, and which devices there are; with the scope for it, what one does about them.

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { liveRpc } from "../connection/runtime.ts";
import { back, threadPath } from "../route.ts";
import { cantAct, inbox, ownClient, phase, presence, type Present, say, sayError, scopes } from "../state.ts";
import { titleOf } from "../threads/inbox.ts";
import { AuditLog } from "./audit.tsx";
import { ago } from "./format.ts";
import { Invite } from "./invite.tsx";
import { Icon, IconButton, Link, now, Sheet, Strange } from "./parts.tsx";

export interface DeviceRow {
  name: string;
  kind: string;
  scopes: string[];
  madeAt: number;
  expiresAt: number | null;
  expired: boolean;
  seenAt: number | null;
  address: string | null;
  attached: number;
  self?: boolean;
}

const SCOPES = ["observe", "approve", "drive", "admin"] as const;

const MAY: Record<string, string> = {
  observe: "watch",
  approve: "approve",
  drive: "write",
  admin: "administer",
};

export function PeopleView(): JSX.Element {
  const [inviting, setInviting] = useState(false);
  const admin = scopes.value.has("admin");
  return (
    <section class="page" aria-label="People and devices">
      <header class="bar">
        <IconButton icon="back" label="Back" class="only-narrow" onClick={back} />
        <div class="bar-title">
          <h1>People and devices</h1>
        </div>
        {admin && (
          <button type="button" class="button small" disabled={!!cantAct.value} onClick={() => setInviting(true)}>
            <Icon name="plus" size={18} /> Invite
          </button>
        )}
      </header>
      <div class="page-body">
        <section class="card">
          <h2 class="card-title">Here now</h2>
          <ul class="people">
            {presence.value.map((each) => (
              <Person key={each.id} who={each} />
            ))}
            {!presence.value.length && <li class="quiet pad">Nobody is known to be here.</li>}
          </ul>
        </section>
        {admin ? <Devices inviting={inviting} /> : <p class="quiet">The devices are shown to who may administer.</p>}
        {admin && <AuditLog />}
        {admin && <Notices />}
      </div>
      {inviting && <Invite onClose={() => setInviting(false)} />}
    </section>
  );
}

function Person({ who }: { who: Present }): JSX.Element {
  const you = who.id === ownClient.value;
  return (
    <li class="person">
      <span class="avatar" aria-hidden="true">
        <Icon name={who.device ? "phone" : "terminal"} size={18} />
      </span>
      <span class="row-body">
        <span class="row-head">
          <span class="row-title">
            <Strange text={who.device ?? who.principal} />
            {you && <span class="tag">you</span>}
          </span>
          <span class="row-age">
            {who.lastDrove === null ? "" : `wrote ${ago(now.value - who.lastDrove * 1000, now.value)}`}
          </span>
        </span>
        <span class="row-foot rights">
          <Strange text={who.name} />
          <span class="sep">·</span>
          may {who.scopes.map((each) => MAY[each] ?? each).join(", ")}
        </span>
        {who.threads.length > 0 && (
          <span class="row-line">
            {who.threads.slice(0, 3).map((id) => (
              <Link key={id} to={threadPath(id)} class="inline-link">
                <Strange text={titleOf(inbox.value.threads.get(id))} />
              </Link>
            ))}
          </span>
        )}
      </span>
    </li>
  );
}

function Devices({ inviting }: { inviting: boolean }): JSX.Element {
  const [devices, setDevices] = useState<DeviceRow[]>([]);
  const [chosen, setChosen] = useState<DeviceRow | null>(null);
  const reading = useRef(0);
  const read = async (): Promise<void> => {
    const own = ++reading.current;
    try {
      const said = await liveRpc().request("mux/devices/list", {});
      if (own === reading.current) setDevices(said.devices);
    } catch {
      // It is read again with the next connection.
    }
  };
  useEffect(() => {
    if (phase.value === "live") void read();
  }, [phase.value, inviting, presence.value]);
  return (
    <section class="card">
      <h2 class="card-title">Devices</h2>
      <ul class="people">
        {devices.map((each) => (
          <li key={each.name}>
            <button type="button" class="person as-row" onClick={() => setChosen(each)}>
              <span class="avatar" aria-hidden="true">
                <Icon name="phone" size={18} />
              </span>
              <span class="row-body">
                <span class="row-head">
                  <span class="row-title">
                    <Strange text={each.name} />
                    {each.self && <span class="tag">this one</span>}
                    {each.expired && <span class="tag bad">expired</span>}
                  </span>
                  <span class="row-age">
                    {each.attached > 0 ? "here" : each.seenAt ? ago(each.seenAt * 1000, now.value) : "never seen"}
                  </span>
                </span>
                <span class="row-foot rights">may {each.scopes.map((one) => MAY[one] ?? one).join(", ")}</span>
              </span>
              <Icon name="right" size={18} />
            </button>
          </li>
        ))}
        {!devices.length && <li class="quiet pad">No device is paired.</li>}
      </ul>
      {chosen && (
        <DeviceSheet
          key={chosen.name}
          row={chosen}
          onClose={() => {
            setChosen(null);
            void read();
          }}
        />
      )}
    </section>
  );
}

function DeviceSheet({ row, onClose }: { row: DeviceRow; onClose: () => void }): JSX.Element {
  const [name, setName] = useState(row.name);
  const [may, setMay] = useState(new Set(row.scopes));
  const [sure, setSure] = useState(false);
  const changed = SCOPES.some((each) => may.has(each) !== row.scopes.includes(each));
  const act = (method: string, params: object, done: string): void => {
    Promise.resolve()
      .then(() => liveRpc().request(method, params))
      .then(() => {
        say(done);
        onClose();
      })
      .catch(sayError);
  };
  return (
    <Sheet title={row.name} onClose={onClose}>
      <dl class="facts">
        <div>
          <dt>kind</dt>
          <dd>{row.kind}</dd>
        </div>
        {row.address && (
          <div>
            <dt>from</dt>
            <dd>{row.address}</dd>
          </div>
        )}
        <div>
          <dt>ends</dt>
          <dd>{row.expiresAt ? new Date(row.expiresAt * 1000).toLocaleString() : "never"}</dd>
        </div>
      </dl>
      <label class="field">
        <span>Name</span>
        <input type="text" maxLength={64} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      <fieldset>
        <legend>It may</legend>
        {SCOPES.map((each) => (
          <label key={each} class="check wide">
            <input
              type="checkbox"
              checked={may.has(each)}
              onChange={(event) => {
                const next = new Set(may);
                if (event.currentTarget.checked) next.add(each);
                else next.delete(each);
                setMay(next);
              }}
            />
            <span>{MAY[each]}</span>
          </label>
        ))}
      </fieldset>
      <div class="stack">
        {name.trim() !== row.name && name.trim() && (
          <button
            type="button"
            class="button primary wide"
            disabled={!!cantAct.value}
            onClick={() => act("mux/devices/rename", { name: row.name, to: name.trim() }, "It was renamed.")}
          >
            Rename
          </button>
        )}
        {changed && (
          <button
            type="button"
            class="button primary wide"
            disabled={!!cantAct.value || !may.size}
            onClick={() => act("mux/devices/scope", { name: row.name, scopes: [...may] }, "It may do that from now on.")}
          >
            Change what it may
          </button>
        )}
        <button
          type="button"
          class="button danger wide"
          disabled={!!cantAct.value}
          onClick={() => (sure ? act("mux/devices/revoke", { name: row.name }, "It is shut out.") : setSure(true))}
        >
          {sure ? "Yes, shut it out at once" : "Revoke"}
        </button>
      </div>
    </Sheet>
  );
}

/** Kinds of notices, in words. */
const TOLD_OF: Record<string, string> = {
  "approval-lost": "approval lost",
  "turn-completed": "turn completed",
  "turn-failed": "turn failed",
  "turn-interrupted": "turn interrupted",
  "goal-reached": "goal reached",
  "goal-blocked": "goal blocked",
  "usage-limit": "usage limit",
  "app-server-down": "Codex is down",
  "app-server-back": "Codex is back",
};

/** The latest of what was raised and told. */
function Notices(): JSX.Element | null {
  const [list, setList] = useState<any[]>([]);
  useEffect(() => {
    if (phase.value !== "live") return;
    liveRpc()
      .request("mux/notices/list", { limit: 20 })
      .then((said) => setList(said.notices))
      .catch(() => undefined);
  }, [phase.value]);
  if (!list.length) return null;
  return (
    <section class="card">
      <h2 class="card-title">Lately told</h2>
      <ul class="people">
        {list.map((each) => (
          <li key={each.id} class="person">
            <span class="row-body">
              <span class="row-head">
                <span class="row-title">
                  <Strange text={each.title || each.kind} />
                </span>
                <span class="row-age">{ago(each.raised * 1000, now.value)}</span>
              </span>
              {each.line && (
                <span class="row-line">
                  <Strange text={each.line} />
                </span>
              )}
              <span class="row-foot rights">
                {TOLD_OF[each.kind] ?? each.kind}
                {each.sentTo.length > 0 && (
                  <>
                    {" · to "}
                    <Strange text={each.sentTo.join(", ")} />
                  </>
                )}
                {each.overWhy && ` · ${each.overWhy}`}
              </span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
