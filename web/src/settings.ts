// What one has set on this device, kept in its storage.

import { signal } from "@preact/signals";

export interface Settings {
  /** The text's size, against the system's. */
  textSize: "100" | "115" | "130";
  theme: "system" | "light" | "dark";
  /** Texts are hidden until they are touched: the screen is shared. */
  hideTexts: boolean;
}

const DEFAULT: Settings = { textSize: "100", theme: "system", hideTexts: false };
const KEY = "settings";

function read(): Settings {
  try {
    return { ...DEFAULT, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return DEFAULT;
  }
}

export const settings = signal<Settings>(read());

export function applySettings(): void {
  const { textSize, theme, hideTexts } = settings.value;
  const root = document.documentElement;
  root.dataset.textSize = textSize;
  root.dataset.theme = theme;
  root.classList.toggle("hide-texts", hideTexts);
}

export function change(what: Partial<Settings>): void {
  settings.value = { ...settings.value, ...what };
  try {
    localStorage.setItem(KEY, JSON.stringify(settings.value));
  } catch {
    // Without a storage it holds until the page is closed.
  }
  applySettings();
}
