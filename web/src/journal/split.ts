// A delta in two: text that came merged, or after a sleep, may be more than one frame can draw.

import type { Message } from "../wire.ts";

/** The delta's first characters, some `most`, and the rest of it; null if it isn't longer, or isn't text. */
export function split(message: Message, most: number): [Message, Message] | null {
  const delta: unknown = message.params?.delta;
  if (typeof delta !== "string") return null;
  const at = most + (isHalf(delta.charCodeAt(most - 1)) ? 1 : 0);
  if (delta.length <= at) return null;
  const part = (text: string): Message => ({ ...message, params: { ...message.params, delta: text } });
  return [part(delta.slice(0, at)), part(delta.slice(at))];
}

/** Whether a code unit is the first one of two that make a character. */
function isHalf(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}
