// Small parts that the views share.

import { signal } from "@preact/signals";
import { Component, type ComponentChildren, type ComponentType, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { go } from "../route.ts";
import { pieces } from "./format.ts";

/** The time, for what shows an age: once in ten seconds is enough. */
export const now = signal(Date.now());
setInterval(() => {
  if (document.visibilityState === "visible") now.value = Date.now();
}, 1000 * 10);
document.addEventListener("visibilitychange", () => (now.value = Date.now()));

/** The time by the second, for what runs. */
export const second = signal(Date.now());
setInterval(() => {
  if (document.visibilityState === "visible") second.value = Date.now();
}, 1000);

const PATHS: Record<string, string> = {
  back: "M15 5l-7 7 7 7",
  more: "M12 5.5v.8M12 11.600v.8M12 17.700v.8",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l4 4",
  gear: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.1 2.1M16.3 16.3l2.1 2.1M18.4 5.6l-2.1 2.1M7.7 16.3l-2.1 2.1",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3 20c0-3.5 2.5-6 6-6s6 2.5 6 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2 .8 3 2.8 3 5.5",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.500a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7z",
  clip: "M19 12l-7.5 7.5a4.5 4.5 0 0 1-6.4-6.4L13 5.3a3 3 0 0 1 4.2 4.2l-7.6 7.7a1.5 1.5 0 0 1-2.2-2.2L14 8.5",
  folder: "M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z",
  file: "M7 3h7l4 4v14H7zM14 3v4h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12M18 6L6 18",
  alert: "M12 8v5M12 16.5h.01M12 3l9.5 17h-19z",
  down: "M6 9l6 6 6-6",
  right: "M9 6l6 6-6 6",
  bolt: "M13 3L5 13h6l-1 8 8-10h-6z",
  hand: "M8 12V6a1.5 1.5 0 0 1 3 0v5V4.5a1.5 1.5 0 0 1 3 0V11V6a1.5 1.5 0 0 1 3 0v8c0 4-2.5 7-6 7-3 0-4.500-1.500-6-4l-2-3.500a1.500 1.500 0 0 1 2.500-1.600z",
  question: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500h.01",
  terminal: "M4 5h16v14H4zM7 9l3 3-3 3M12.500 15H17",
  globe: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
  tool: "M14.500 6.500a4 4 0 0 0-5 5L4 17l3 3 5.500-5.500a4 4 0 0 0 5-5L15 12l-3-3z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.500 2",
  eye: "M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12zM12 14.500a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5z",
  bell: "M6 16V11a6 6 0 0 1 12 0v5l1.500 2h-15zM10 20.500h4",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.700-5.700L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.700 5.700L12 17",
  phone: "M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zM11 18h2",
  share: "M12 15V4M8 7.500L12 4l4 3.500M5 13v6h14v-6",
  image: "M4 5h16v14H4zM4 16l4.500-4.500 4 4 3-3L20 16M15.500 9h.01",
};

export function Icon({ name, size = 20 }: { name: string; size?: number }): JSX.Element {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.9"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} fill={name === "stop" ? "currentColor" : undefined} />
    </svg>
  );
}

export function IconButton(props: {
  icon: string;
  label: string;
  onClick?: () => void;
  class?: string;
  disabled?: boolean;
}): JSX.Element {
  return (
    <button
      type="button"
      class={`icon-button ${props.class ?? ""}`}
      aria-label={props.label}
      title={props.label}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      <Icon name={props.icon} size={22} />
    </button>
  );
}

/** A link within the page. */
export function Link(props: {
  to: string;
  class?: string;
  label?: string;
  current?: boolean;
  children: ComponentChildren;
}): JSX.Element {
  const follow = (event: MouseEvent): void => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(props.to);
  };
  return (
    <a
      href={props.to}
      class={props.class}
      aria-label={props.label}
      aria-current={props.current ? "page" : undefined}
      onClick={follow}
    >
      {props.children}
    </a>
  );
}

/** A text of a stranger's: what can't be seen is shown as such, and stays on its own direction. */
export function Strange({ text, class: name }: { text: string; class?: string }): JSX.Element {
  return (
    <bdi class={name}>
      {pieces(text).map((piece, index) =>
        "mark" in piece ? (
          <span key={index} class="unseen" title="A character that can’t be seen">
            {piece.mark}
          </span>
        ) : (
          piece.text
        ),
      )}
    </bdi>
  );
}

/** A sheet over the page, closed by Escape, by its button, or by a tap beside it. */
export function Sheet(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  /** For what is read, not chosen. */
  wide?: boolean;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  // One sheet may take another's place: the end of the first isn't a wish to close.
  const shown = useRef(true);
  useEffect(() => {
    const dialog = ref.current!;
    dialog.showModal();
    return () => {
      shown.current = false;
      dialog.close();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={props.wide ? "sheet wide" : "sheet"}
      aria-label={props.title}
      onClose={() => shown.current && props.onClose()}
      onClick={(event) => {
        if (event.target === ref.current) props.onClose();
      }}
    >
      <div class="sheet-body">
        <header class="sheet-head">
          <h2>{props.title}</h2>
          <IconButton icon="cross" label="Close" onClick={props.onClose} />
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

/** A component that is rendered again only if one of its properties is another one. */
export function memo<Props extends object>(
  view: (props: Props) => JSX.Element | null,
): ComponentType<Props> {
  return class extends Component<Props> {
    // Such a view reads no signal: what it shows is in its properties.
    override shouldComponentUpdate(next: Readonly<Props>): boolean {
      const now = this.props as Record<string, unknown>;
      const then = next as Record<string, unknown>;
      return Object.keys(then).some((name) => then[name] !== now[name]);
    }
    override render(props: Readonly<Props & { children?: ComponentChildren }>): JSX.Element | null {
      return view(props);
    }
  };
}

/**
 * How many of so many parts are drawn by now: as many as `first` at once, then `step` more with each frame,
 * so that what one looks at is there soon, and a tap is heard while the rest comes.
 */
export function useGradually(total: number, first: number, step: number): number {
  const [most, setMost] = useState(first);
  const more = most < total;
  useEffect(() => {
    if (!more) return undefined;
    const frame = requestAnimationFrame(() => setMost(most + step));
    return () => cancelAnimationFrame(frame);
  }, [more, most]);
  return most;
}

/** A view whose code is loaded when it is wanted. */
export function lazy<Props extends object>(
  load: () => Promise<ComponentType<Props>>,
): ComponentType<Props> {
  let found: ComponentType<Props> | undefined;
  return function Lazy(props: Props): JSX.Element {
    const [, ready] = useState(0);
    const [trouble, setTrouble] = useState("");
    useEffect(() => {
      if (found) return;
      load().then(
        (loaded) => {
          found = loaded;
          ready(1);
        },
        () => setTrouble("This part of the page couldn’t be loaded."),
      );
    }, []);
    if (found) {
      const Found = found;
      return <Found {...props} />;
    }
    if (!trouble) return <p class="quiet centered" role="status">Loading…</p>;
    return (
      <p class="quiet centered" role="alert">
        {trouble}{" "}
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload
        </button>
      </p>
    );
  };
}

export function Segmented<Value extends string>(props: {
  label: string;
  value: Value;
  options: readonly { value: Value; label: string }[];
  onChange: (value: Value) => void;
}): JSX.Element {
  return (
    <fieldset class="segmented">
      <legend class="visually-hidden">{props.label}</legend>
      {props.options.map((each) => (
        <label key={each.value} class={each.value === props.value ? "on" : ""}>
          <input
            type="radio"
            name={props.label}
            checked={each.value === props.value}
            onChange={() => props.onChange(each.value)}
          />
          {each.label}
        </label>
      ))}
    </fieldset>
  );
}
