// What is read off a thread's state: texts, outputs, what runs, and all that a person sees.

import type { Item, ThreadState, TurnState } from "./thread.ts";

/** An item's main text: its own when it has one, what it streamed so far while it runs. */
export function textOf(item: Item): string {
  const said = item.item;
  if ((said.type === "agentMessage" || said.type === "plan") && said.text) return said.text;
  return item.text;
}

/** A command's output. */
export function outputOf(item: Item): string {
  const said = item.item;
  if (said.type === "commandExecution" && said.aggregatedOutput !== null) {
    return said.aggregatedOutput;
  }
  return item.output;
}

/** A reasoning item's summary. */
export function summaryOf(item: Item): string {
  const said = item.item;
  if (said.type !== "reasoning") return "";
  if (said.summary.length) return said.summary.join("\n\n");
  return item.parts.join("\n\n") || item.text;
}

/** The turn that runs, if one does. */
export function runningTurn(state: ThreadState): TurnState | null {
  let last: TurnState | null = null;
  for (const each of state.turns.values()) if (each.status === "inProgress") last = each;
  return last;
}

/** All that a person sees of a thread, as plain values: equal views are equal. */
export function shown(state: ThreadState): unknown {
  return {
    status: state.status,
    items: state.order.map((id) => {
      const item = state.items.get(id)!;
      return [item.turnId, item.item, item.running, textOf(item), outputOf(item), summaryOf(item)];
    }),
    turns: [...state.turns.values()].map((each) => [each.id, each.status, each.plan, each.diff]),
    decisions: [...state.decisions.values()],
    usage: state.usage,
  };
}
