// The start: what needs a person, what runs, what was.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { askingFor, plainCommand, riskOf } from "../approvals/requests.ts";
import { rpc } from "../connection/runtime.ts";
import { personOf } from "../people.ts";
import { open, route, threadPath } from "../route.ts";
import { inbox, inboxKept, phase, scopes } from "../state.ts";
import { emptyInbox, groups, type Inbox, type Need, type Row, takePage, titleOf } from "../threads/inbox.ts";
import { ago, count, lasted, shortPath, within } from "./format.ts";
import { Icon, IconButton, Link, memo, now, second, Strange, useGradually } from "./parts.tsx";
import { Banner, ConnectionState, hostName } from "./status.tsx";

/** Letters typed in a row are one search. */
const SEARCH_PAUSE_MS = 200;

/** Rows that are drawn at once: a phone's screen of them, and as many more with each frame. */
const AT_ONCE = 10;
const STEP = 5;

export function InboxView(): JSX.Element {
  const [search, setSearch] = useState("");
  const [archived, setArchived] = useState(false);
  const [searching, setSearching] = useState(false);
  const found = useSearch(search, archived);
  const shown = found ?? inbox.value;
  const { needs, running, recent } = groups(inbox.value);
  const list = found ? [...found.threads.values()] : recent;
  const drawn = useGradually(list.length, AT_ONCE, STEP);
  return (
    <section class="inbox" aria-label="Inbox">
      <header class="bar">
        <div class="bar-title">
          <h1>
            <Strange text={hostName()} />
          </h1>
          <ConnectionState />
        </div>
        <nav class="bar-actions" aria-label="Page">
          <IconButton
            icon="search"
            label={searching ? "Close the search" : "Search threads"}
            onClick={() => {
              setSearching(!searching);
              setSearch("");
              setArchived(false);
            }}
          />
          <Link to="/people" class="icon-button" label="People and devices" current={route.value.view === "people"}>
            <Icon name="people" size={22} />
          </Link>
          <Link to="/settings" class="icon-button" label="Settings" current={route.value.view === "settings"}>
            <Icon name="gear" size={22} />
          </Link>
        </nav>
      </header>
      <Banner />
      {searching && (
        <div class="search">
          <label class="visually-hidden" for="search">
            Search threads by title
          </label>
          <input
            id="search"
            type="search"
            placeholder="Search threads"
            value={search}
            ref={(each) => each?.focus()}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
          <label class="check">
            <input
              type="checkbox"
              checked={archived}
              onChange={(event) => setArchived(event.currentTarget.checked)}
            />
            Archived
          </label>
        </div>
      )}
      <div class={`groups${inboxKept.value ? " kept" : ""}`}>
        {!found && <Needs needs={needs} />}
        {!found && running.length > 0 && (
          <Group title="Running" count={running.length}>
            {running.map((each) => (
              <Steady key={each.id} row={each} view={RunningRow} />
            ))}
          </Group>
        )}
        <Group title={found ? (archived ? "Archived" : "Found") : "Recent"} count={null}>
          {list.slice(0, drawn).map((each) => (
            <Steady key={each.id} row={each} view={RecentRow} />
          ))}
          {!list.length && (
            <Empty
              known={!inboxKept.value || inbox.value.at > 0}
              found={!!found}
              others={needs.length > 0 || running.length > 0}
            />
          )}
        </Group>
        {!found && shown.nextCursor && <More />}
      </div>
      {scopes.value.has("drive") && (
        <Link to="/new" class="fab" label="New thread">
          <Icon name="plus" size={22} />
          <span>New thread</span>
        </Link>
      )}
    </section>
  );
}

function Empty(props: { known: boolean; found: boolean; others: boolean }): JSX.Element {
  if (!props.known) return <Skeleton />;
  const none = props.others ? "No other threads." : "No threads yet.";
  return <p class="quiet pad">{props.found ? "No thread has this in its title." : none}</p>;
}

function Skeleton(): JSX.Element {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {[0, 1, 2, 3].map((each) => (
        <div key={each} class="skeleton-row" />
      ))}
    </div>
  );
}

function Group(props: {
  title: string;
  count: number | null;
  children: preact.ComponentChildren;
}): JSX.Element {
  return (
    <section class="group">
      <h2>
        {props.title}
        {props.count !== null && <span class="count">{props.count}</span>}
      </h2>
      <ul>{props.children}</ul>
    </section>
  );
}

function Needs({ needs }: { needs: Need[] }): JSX.Element {
  if (!needs.length) {
    return (
      <section class="group needs-none">
        <h2>Needs you</h2>
        <p class="quiet pad">
          {inboxKept.value && phase.value !== "live" ? "Not known yet." : "Nothing waits for you."}
        </p>
      </section>
    );
  }
  return (
    <Group title="Needs you" count={needs.length}>
      {needs.map((each) => (
        <NeedRow key={each.key} need={each} />
      ))}
    </Group>
  );
}

function NeedRow({ need }: { need: Need }): JSX.Element {
  const thread = need.rootThreadId ?? need.threadId;
  const icon = need.kind === "queue" ? "clock" : need.kind === "question" ? "question" : "hand";
  return (
    <li>
      <Link
        to={thread ? threadPath(thread) : "/"}
        class="row need"
        current={thread !== null && open.value === thread}
      >
        <span class="row-icon">
          <Icon name={icon} />
        </span>
        <span class="row-body">
          <span class="row-head">
            <span class="row-title">{needTitle(need)}</span>
            <span class="row-age">{ago(need.since, now.value)}</span>
          </span>
          <NeedSubject need={need} />
          <span class="row-foot">
            <Strange text={need.title || "New thread"} />
            <span class="sep">·</span>
            <span title={need.directory}>
              <Strange text={shortPath(need.directory)} />
            </span>
          </span>
          {(need.risks?.length || waits(need)) && (
            <span class="row-tags">
              {need.risks?.map((each) => (
                <span key={each} class="tag warn">
                  {riskOf(each)}
                </span>
              ))}
              {waits(need) && <span class="tag">waits for {waits(need)}</span>}
            </span>
          )}
        </span>
      </Link>
    </li>
  );
}

/** What the policy waits for, where it is more than anybody's word. */
function waits(need: Need): string {
  return need.policy && need.policy !== "first" ? (need.waitsFor ?? "") : "";
}

function needTitle(need: Need): string {
  if (need.kind === "queue") {
    const why: Record<string, string> = {
      interrupted: "the turn was interrupted",
      failed: "a turn failed",
      appServerEnded: "codex was restarted",
    };
    return `Queue held: ${why[need.held ?? ""] ?? need.held}`;
  }
  return askingFor(need);
}

function NeedSubject({ need }: { need: Need }): JSX.Element | null {
  if (need.kind === "queue") {
    return <span class="row-line">{count(need.queued ?? 0, "message")} wait</span>;
  }
  if (need.command) {
    return (
      <code class="row-command">
        <Strange text={plainCommand(need.command)} />
      </code>
    );
  }
  if (need.files?.length) {
    const [first, ...rest] = need.files;
    const added = need.files.reduce((sum, each) => sum + each.added, 0);
    const removed = need.files.reduce((sum, each) => sum + each.removed, 0);
    return (
      <span class="row-files">
        <span class="row-line">
          <Strange text={within(first!.path, need.directory)} />
          {rest.length > 0 && ` and ${count(rest.length, "more file")}`}
        </span>
        <span class="counts">
          <span class="added">+{added}</span> <span class="removed">−{removed}</span>
        </span>
      </span>
    );
  }
  const text = need.text ?? need.reason;
  if (!text) return null;
  return (
    <span class="row-line">
      <Strange text={text} />
    </span>
  );
}

/** A row that is drawn again with its own thread, not with every change of the inbox: it is one of many. */
const Steady = memo(function Steady({ row, view: View }: { row: Row; view: (props: { row: Row }) => JSX.Element }) {
  return <View row={row} />;
});

function RunningRow({ row }: { row: Row }): JSX.Element {
  const by = row.turn!.by;
  return (
    <li>
      <Link to={threadPath(row.id)} class="row" current={open.value === row.id}>
        <span class="row-icon running">
          <span class="spinner" aria-hidden="true" />
        </span>
        <span class="row-body">
          <span class="row-head">
            <span class="row-title">
              <Strange text={titleOf(row)} />
            </span>
            <span class="row-age">{lasted(second.value - row.turn!.since)}</span>
          </span>
          <LastLine row={row} />
          <span class="row-foot">
            {by ? `driven by ${personOf(by)}` : "running"}
            <span class="sep">·</span>
            <Strange text={shortPath(row.directory)} />
            {row.queued > 0 && <span class="tag">{row.queued} queued</span>}
          </span>
        </span>
      </Link>
    </li>
  );
}

function RecentRow({ row }: { row: Row }): JSX.Element {
  const at = row.recencyAt ?? row.updatedAt;
  const ended = row.lastTurn?.status;
  return (
    <li>
      <Link
        to={threadPath(row.id)}
        class={`row${row.unread ? " unread" : ""}`}
        current={open.value === row.id}
      >
        <span class="row-mark">
          {row.unread && <span class="unread-dot" role="img" aria-label="Unread" />}
        </span>
        <span class="row-body">
          <span class="row-head">
            <span class="row-title">
              <Strange text={titleOf(row)} />
            </span>
            {at !== null && <span class="row-age">{ago(at * 1000, now.value)}</span>}
          </span>
          <LastLine row={row} />
          <span class="row-foot">
            <span title={row.directory}>
              <Strange text={shortPath(row.directory)} />
            </span>
            {ended === "failed" && <span class="tag bad">failed</span>}
            {ended === "interrupted" && <span class="tag">interrupted</span>}
          </span>
        </span>
      </Link>
    </li>
  );
}

function LastLine({ row }: { row: Row }): JSX.Element | null {
  const line = row.lastLine;
  if (!line?.text) return null;
  const mono = line.of === "command" || line.of === "output";
  return (
    <span class={`row-line${mono ? " mono" : ""}`}>
      {line.of === "command" && <span class="prompt">$ </span>}
      {line.of === "user" && <span class="prompt">You: </span>}
      <Strange text={line.text} />
    </span>
  );
}

function More(): JSX.Element {
  const [busy, setBusy] = useState(false);
  const load = async (): Promise<void> => {
    const cursor = inbox.value.nextCursor;
    if (!cursor || !rpc()) return;
    setBusy(true);
    try {
      const page = await rpc()!.request("mux/inbox", { cursor, limit: 40 });
      inbox.value = takePage(inbox.value, page, Date.now(), false);
    } catch {
      // A tap tries again.
    }
    setBusy(false);
  };
  return (
    <button type="button" class="button more" disabled={busy || phase.value !== "live"} onClick={load}>
      {busy ? "Loading…" : "Older threads"}
    </button>
  );
}

/** The threads found, or null while nothing is searched for. */
function useSearch(search: string, archived: boolean): Inbox | null {
  const [found, setFound] = useState<Inbox | null>(null);
  const wanted = search.trim();
  const on = wanted !== "" || archived;
  useEffect(() => {
    if (!on) {
      setFound(null);
      return undefined;
    }
    let late = false;
    const timer = setTimeout(async () => {
      try {
        const params = { archived, limit: 50, ...(wanted && { search: wanted }) };
        const page = await rpc()!.request("mux/inbox", params);
        if (!late) setFound(takePage(emptyInbox(), page, Date.now(), true));
      } catch {
        // What was found before stays.
      }
    }, SEARCH_PAUSE_MS);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [wanted, archived, on, phase.value]);
  if (!on) return null;
  // What is known here is found at once, and in any case of letters.
  const known = [...inbox.value.threads.values()].filter(
    (each) => wanted && !archived && titleOf(each).toLowerCase().includes(wanted.toLowerCase()),
  );
  const told = found ?? emptyInbox();
  return { ...told, threads: new Map([...known.map((each) => [each.id, each] as const), ...told.threads]) };
}
