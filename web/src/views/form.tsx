// A form of an MCP server's, made of its schema; or a page of its that a person should open.

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import type { Request } from "../approvals/requests.ts";
import type { Guarded } from "./approval.tsx";
import { Strange } from "./parts.tsx";

interface Field {
  type: string;
  title?: string;
  description?: string;
  default?: unknown;
  enum?: string[];
  enumNames?: string[];
  oneOf?: { const: string; title: string }[];
  items?: { enum?: string[]; anyOf?: { const: string; title: string }[] };
  format?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
}

type Values = Record<string, unknown>;

export function FormCard(props: {
  request: Request;
  guard: Guarded;
  blocked: boolean;
  reply: (result: unknown) => Promise<boolean>;
}): JSX.Element {
  const { params } = props.request;
  const fields = Object.entries((params.requestedSchema?.properties ?? {}) as Record<string, Field>);
  const required = new Set<string>(params.requestedSchema?.required ?? []);
  const [values, setValues] = useState<Values>(() =>
    Object.fromEntries(fields.map(([name, each]) => [name, first(each)])),
  );
  const url = params.mode === "url" ? String(params.url) : null;
  const missing = fields.filter(([name]) => required.has(name) && empty(values[name]));
  const reply = (action: string): void => {
    const content = action === "accept" && !url ? sent(fields, values) : null;
    void props.reply({ action, content, _meta: null });
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    props.guard.press(() => reply("accept"));
  };
  return (
    <form class="question" onSubmit={submit}>
      <div class="question-list">
        <p class="strong">
          <Strange text={params.message ?? params.description ?? ""} />
        </p>
        <p class="quiet">
          asked by the server <Strange text={params.serverName} />
        </p>
        {url && /^https?:/.test(url) && (
          <a class="button wide" href={url} target="_blank" rel="noopener noreferrer">
            Open <Strange text={new URL(url).host} />
          </a>
        )}
        {fields.map(([name, each]) => (
          <FieldView
            key={name}
            name={name}
            field={each}
            required={required.has(name)}
            value={values[name]}
            onChange={(value) => setValues({ ...values, [name]: value })}
          />
        ))}
      </div>
      <div class="answers-first">
        <button
          type="submit"
          class={`button primary${props.guard.still ? "" : " settling"}`}
          disabled={props.blocked || missing.length > 0}
          onPointerDown={props.guard.down}
        >
          {url ? "Done" : fields.length ? "Send" : "Allow"}
        </button>
        <button
          type="button"
          class={`button answer-no${props.guard.still ? "" : " settling"}`}
          disabled={props.blocked}
          onPointerDown={props.guard.down}
          onClick={() => props.guard.press(() => reply("decline"))}
        >
          Decline
        </button>
      </div>
    </form>
  );
}

function FieldView(props: {
  name: string;
  field: Field;
  required: boolean;
  value: unknown;
  onChange: (value: unknown) => void;
}): JSX.Element {
  const { name, field, required, value, onChange } = props;
  const title = field.title ?? name;
  const label = (
    <span>
      <Strange text={title} />
      {required ? <em class="required"> required</em> : <span class="quiet"> optional</span>}
    </span>
  );
  const hint = field.description && (
    <span class="quiet">
      <Strange text={field.description} />
    </span>
  );
  const options = optionsOf(field);
  if (options) {
    const many = field.type === "array";
    const on = (each: string): boolean => (many ? (value as string[]).includes(each) : value === each);
    return (
      <fieldset>
        <legend>{label}</legend>
        {hint}
        {options.map((each) => (
          <button
            key={each.value}
            type="button"
            class={`choice${on(each.value) ? " on" : ""}`}
            aria-pressed={on(each.value)}
            onClick={() => {
              if (!many) return onChange(each.value);
              const list = value as string[];
              onChange(on(each.value) ? list.filter((other) => other !== each.value) : [...list, each.value]);
            }}
          >
            <Strange text={each.title} />
          </button>
        ))}
      </fieldset>
    );
  }
  if (field.type === "boolean") {
    return (
      <label class="check wide">
        <input
          type="checkbox"
          checked={value === true}
          onChange={(event) => onChange(event.currentTarget.checked)}
        />
        {label}
        {hint}
      </label>
    );
  }
  const numeric = field.type === "number" || field.type === "integer";
  const formats: Record<string, string> = { email: "email", uri: "url", date: "date", "date-time": "datetime-local" };
  return (
    <label class="field">
      {label}
      {hint}
      <input
        {...({ type: numeric ? "number" : (formats[field.format ?? ""] ?? "text") } as object)}
        step={field.type === "integer" ? 1 : "any"}
        min={field.minimum}
        max={field.maximum}
        minLength={field.minLength}
        maxLength={field.maxLength}
        required={required}
        value={String(value ?? "")}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
    </label>
  );
}

function optionsOf(field: Field): { value: string; title: string }[] | null {
  const source = field.type === "array" ? (field.items ?? {}) : field;
  const titled = "oneOf" in source && source.oneOf ? source.oneOf : "anyOf" in source ? source.anyOf : undefined;
  if (titled) return titled.map((each) => ({ value: each.const, title: each.title }));
  return (
    source.enum?.map((each, index) => ({ value: each, title: field.enumNames?.[index] ?? each })) ?? null
  );
}

function first(field: Field): unknown {
  if (field.default !== undefined) return field.default;
  if (field.type === "array") return [];
  return field.type === "boolean" ? false : "";
}

function empty(value: unknown): boolean {
  return value === undefined || value === "" || (Array.isArray(value) && !value.length);
}

function sent(fields: [string, Field][], values: Values): Values {
  const made: Values = {};
  for (const [name, field] of fields) {
    const value = values[name];
    if (empty(value)) continue;
    const numeric = field.type === "number" || field.type === "integer";
    made[name] = numeric ? Number(value) : value;
  }
  return made;
}
