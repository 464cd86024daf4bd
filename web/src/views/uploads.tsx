// Files on their way: how far each is, and what can be done with it.

import type { JSX } from "preact";
import { dropUpload, toggleUpload, type Upload } from "../composer/uploads.ts";
import { IconButton, Strange } from "./parts.tsx";

export function Uploads({ list }: { list: Upload[] }): JSX.Element {
  return (
    <ul class="uploads" aria-label="Files to send">
      {list.map((each) => {
        const { id, name, state } = each;
        return (
          <li key={id}>
            <span class="outbox-text">
              <Strange text={name} />
            </span>
            {state === "running" || state === "paused" ? (
              <progress max={each.size || 1} value={each.sent} aria-label={`Upload of ${name}`} />
            ) : (
              <span class={each.why ? "bad" : "quiet"} role="status">
                {each.why || "on the host"}
              </span>
            )}
            {state !== "done" && (
              <button
                type="button"
                class="button small"
                onClick={() => toggleUpload(id)}
              >
                {state === "running" ? "Pause" : "Go on"}
              </button>
            )}
            <IconButton icon="cross" label={`Remove ${name}`} onClick={() => dropUpload(id)} />
          </li>
        );
      })}
    </ul>
  );
}
