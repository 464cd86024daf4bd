// What waits for a person's word: which answers there are, and what each means in plain words.

import type { FileCount } from "../threads/inbox.ts";

export interface FileDiff extends FileCount {
  diff: string | null;
  cut: boolean;
}

export interface Vote {
  name: string;
  principal: string;
  decision: string;
  counts: boolean;
}

/** A request, as `mux/approvals/list` tells it. */
export interface Request {
  id: number;
  method: string;
  threadId: string;
  rootThreadId: string | null;
  turnId: string | null;
  itemId: string | null;
  title: string;
  directory: string;
  since: number;
  policy: string;
  waitsFor: string;
  votes: Vote[];
  params: any;
  reason: string | null;
  command: string | null;
  cwd: string | null;
  files: FileDiff[];
  risks: string[];
  choices: unknown[];
}

export const COMMAND = "item/commandExecution/requestApproval";
export const FILES = "item/fileChange/requestApproval";
export const PERMISSIONS = "item/permissions/requestApproval";
export const QUESTION = "item/tool/requestUserInput";
export const FORM = "mcpServer/elicitation/request";

/** A button: what it says, what it sends, and what kind of answer it is. */
export interface Choice {
  key: string;
  label: string;
  kind: "yes" | "more" | "no" | "stop";
  result: unknown;
}

export function takeRequest(said: any, now: number): Request {
  const { ageSeconds, item, ...rest } = said;
  const { params } = said;
  return {
    ...rest,
    since: now - 1000 * ageSeconds,
    turnId: said.turnId ?? params.turnId ?? null,
    itemId: said.itemId ?? params.itemId ?? null,
    reason: said.reason ?? params.reason ?? null,
    command: said.command ?? params.command ?? null,
    cwd: said.cwd ?? params.cwd ?? null,
    files: said.files ?? [],
    risks: said.risks ?? [],
    votes: said.votes ?? [],
    choices: said.choices ?? params.availableDecisions ?? [],
  };
}

/** The buttons of a request that a press answers; of a question or a form there are none. */
export function choicesOf(request: Request): Choice[] {
  if (request.method === PERMISSIONS) return permissionChoices(request);
  if (request.method !== COMMAND && request.method !== FILES) return [];
  const offered = request.choices.length ? request.choices : ["accept", "decline"];
  return offered.map(choice).filter((each) => each !== null);
}

function choice(decision: any): Choice | null {
  const result = { decision };
  if (decision === "accept") return { key: "accept", label: "Approve", kind: "yes", result };
  if (decision === "acceptForSession") {
    return { key: "session", label: "Approve for this session", kind: "more", result };
  }
  if (decision === "decline") return { key: "decline", label: "Decline", kind: "no", result };
  if (decision === "cancel") {
    return { key: "cancel", label: "Decline and stop the turn", kind: "stop", result };
  }
  const amendment = decision?.acceptWithExecpolicyAmendment?.execpolicy_amendment;
  if (amendment) {
    const words = amendment.join(" ");
    return { key: "rule", label: `Approve, and always “${words} …”`, kind: "more", result };
  }
  const network = decision?.applyNetworkPolicyAmendment?.network_policy_amendment;
  if (network) {
    const allow = network.action === "allow";
    const label = `${allow ? "Always allow" : "Never allow"} ${network.host}`;
    return { key: `host-${network.action}`, label, kind: allow ? "more" : "no", result };
  }
  return null;
}

function permissionChoices(request: Request): Choice[] {
  const asked = request.params?.permissions ?? {};
  const permissions: Record<string, unknown> = {};
  for (const name of ["network", "fileSystem"]) if (asked[name]) permissions[name] = asked[name];
  return [
    { key: "turn", label: "Grant for this turn", kind: "yes", result: { permissions, scope: "turn" } },
    {
      key: "session",
      label: "Grant for this session",
      kind: "more",
      result: { permissions, scope: "session" },
    },
    { key: "decline", label: "Decline", kind: "no", result: { permissions: {}, scope: "turn" } },
  ];
}

/** The answer that says no, for "Decline and say why"; null where there is none. */
export function refusal(request: Request): unknown | null {
  const all = choicesOf(request);
  const no = all.find((each) => each.kind === "no") ?? all.find((each) => each.kind === "stop");
  return no?.result ?? null;
}

/** The headline of a request. */
export function askingFor(request: { method?: string; files?: unknown[] }): string {
  switch (request.method) {
    case COMMAND:
      return "Run this command?";
    case FILES: {
      const count = request.files?.length ?? 0;
      return count > 1 ? `Change ${count} files?` : "Change this file?";
    }
    case PERMISSIONS:
      return "Grant more permissions?";
    case QUESTION:
      return "A question for you";
    case FORM:
      return "A form to fill in";
    default:
      return "Something needs your word";
  }
}

const RISKS: Record<string, string> = {
  escalated: "outside the sandbox",
  network: "reaches the network",
  "outside-workspace": "outside the thread’s directory",
  unknown: "can’t be judged",
};

/** A class of risk in words. */
export function riskOf(name: string): string {
  return RISKS[name] ?? name;
}

/** A decision in words, as it was taken: "approved", "declined". */
export function decided(decision: string): string {
  const words: Record<string, string> = {
    accept: "approved",
    acceptForSession: "approved for the session",
    decline: "declined",
    cancel: "declined, turn stopped",
    answered: "answered",
    withdrawn: "withdrawn",
  };
  return words[decision] ?? "decided";
}

/** The command without the login shell that codex wraps around it, where what is left is it. */
export function plainCommand(command: string): string {
  const wrapped = /^(?:\/\S*\/)?(?:ba|z|da)?sh -lc ([\s\S]+)$/.exec(command);
  if (!wrapped) return command;
  const inner = wrapped[1]!;
  if (/^[\w@%+=:,./-]+$/.test(inner)) return inner;
  if (/^'[^']*'$/.test(inner)) return inner.slice(1, -1);
  if (/^"(?:[^"\\$`]|\\["\\$`])*"$/.test(inner)) {
    return inner.slice(1, -1).replace(/\\(["\\$`])/g, "$1");
  }
  // Quoted in pieces: taking the quotes off could make it read otherwise than it is.
  return command;
}

// -- the guard -------------------------------------------------------------------------------------

/** A card must have stood still for so long before a press counts. */
export const GUARD_MS = 500;

/** Judges presses on one card. It is told the time, and never asks for it. */
export class PressGuard {
  #stillSince: number;
  #down: { id: unknown; allowed: boolean } | null = null;
  #id: unknown;

  constructor(id: unknown, now: number) {
    this.#id = id;
    this.#stillSince = now;
  }

  /** The card moved, changed, or shows another request. */
  changed(id: unknown, now: number): void {
    this.#id = id;
    this.#stillSince = now;
  }

  /** A finger, or a key, went down. */
  down(now: number): void {
    this.#down = { id: this.#id, allowed: now - this.#stillSince >= GUARD_MS };
  }

  /** The press is complete: may it answer the request `id`, which the button is of? */
  press(id: unknown, now: number): boolean {
    const down = this.#down ?? { id, allowed: now - this.#stillSince >= GUARD_MS };
    this.#down = null;
    return down.allowed && down.id === id && this.#id === id;
  }
}
