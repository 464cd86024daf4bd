// What a person is called: who did something, by the client and the principal that the broker names.

import { identity, ownClient } from "./state.ts";

export interface By {
  client?: number | null;
  name: string;
  principal: string;
}

/** "you", a device's name, or the program's where nobody is named. */
export function personOf(by: By): string {
  if (by.client != null && by.client === ownClient.value) return "you";
  const own = identity.value?.name;
  if (own && by.principal === own) return "you";
  // Who came over the unix socket or an open listener has no name of his own.
  return by.principal && by.principal !== "local" ? by.principal : by.name;
}
