// A browser that is signed in and is brought a ticket: it is asked, and nothing is merged.

import type { JSX } from "preact";
import { forgetOnThisDevice, signOut } from "../connection/runtime.ts";
import { beginPairing } from "../connection/device.ts";
import { type Invitation } from "../connection/invitation.ts";
import { device, phase, sayError } from "../state.ts";
import { Strange } from "./parts.tsx";

export function BecomeView(props: { by: Invitation; onStay: () => void }): JSX.Element {
  const become = async (): Promise<void> => {
    try {
      if (phase.value === "live") await signOut();
      await forgetOnThisDevice();
      await beginPairing(props.by, device.value?.name ?? "browser");
      location.assign("/");
    } catch (failure) {
      sayError(failure);
    }
  };
  return (
    <main class="boot pair">
      <h1>This browser is paired already</h1>
      <p class="quiet">
        It is <strong><Strange text={device.value?.name ?? ""} /></strong>. The link that was opened
        would make it another device. What it keeps is removed then.
      </p>
      <div class="stack">
        <button type="button" class="button primary wide" onClick={props.onStay}>
          Stay as it is
        </button>
        <button type="button" class="button wide" onClick={() => void become()}>
          Become the new one
        </button>
      </div>
    </main>
  );
}
