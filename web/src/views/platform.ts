// What kind of browser this is.

/** Whether the page runs as an installed app. */
export function standalone(): boolean {
  return (
    matchMedia("(display-mode: standalone)").matches ||
    (navigator as { standalone?: boolean }).standalone === true
  );
}

/** A name for this device that a person would recognise. */
export function defaultName(): string {
  const agent = navigator.userAgent;
  const machine = /iPhone|iPad|Android|Macintosh|Windows|Linux/.exec(agent)?.[0] ?? "device";
  const named: Record<string, string> = { Macintosh: "Mac", Android: "Android phone" };
  const browser = /Firefox|Edg|Chrome|Safari/.exec(agent)?.[0]?.replace("Edg", "Edge") ?? "browser";
  return `${browser} on ${named[machine] ?? machine}`;
}
