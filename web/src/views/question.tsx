// The model's questions: choices as large buttons, and free text.

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import type { Request } from "../approvals/requests.ts";
import type { ToolRequestUserInputQuestion } from "../wire.ts";
import type { Guarded } from "./approval.tsx";
import { Strange } from "./parts.tsx";

export function QuestionCard(props: {
  request: Request;
  guard: Guarded;
  blocked: boolean;
  reply: (result: unknown) => Promise<boolean>;
}): JSX.Element {
  const questions = (props.request.params.questions ?? []) as ToolRequestUserInputQuestion[];
  const [chosen, setChosen] = useState<Record<string, string>>({});
  const [written, setWritten] = useState<Record<string, string>>({});
  const answerOf = (id: string): string[] => {
    const found = [chosen[id], written[id]?.trim()].filter((each): each is string => !!each);
    return found.slice(-1);
  };
  const complete = questions.every((each) => answerOf(each.id).length > 0);
  const submit = (event: Event): void => {
    event.preventDefault();
    const answers = Object.fromEntries(
      questions.map((each) => [each.id, { answers: answerOf(each.id) }]),
    );
    props.guard.press(() => void props.reply({ answers }));
  };
  return (
    <form class="question" onSubmit={submit}>
      <div class="question-list">
        {questions.map((each) => (
          <fieldset key={each.id}>
            <legend>
              <Strange text={each.question} />
            </legend>
            {each.options?.map((option) => (
              <button
                key={option.label}
                type="button"
                class={`choice${chosen[each.id] === option.label ? " on" : ""}`}
                aria-pressed={chosen[each.id] === option.label}
                onClick={() => {
                  setChosen({ ...chosen, [each.id]: option.label });
                  setWritten({ ...written, [each.id]: "" });
                }}
              >
                <span class="choice-label">
                  <Strange text={option.label} />
                </span>
                {option.description && (
                  <span class="quiet">
                    <Strange text={option.description} />
                  </span>
                )}
              </button>
            ))}
            <label class="field">
              <span>{each.options?.length ? "Or in your own words" : "Your answer"}</span>
              <input
                {...({ type: each.isSecret ? "password" : "text" } as object)}
                autocomplete="off"
                value={written[each.id] ?? ""}
                onInput={(event) => {
                  setWritten({ ...written, [each.id]: event.currentTarget.value });
                  const { [each.id]: _, ...rest } = chosen;
                  setChosen(rest);
                }}
              />
            </label>
          </fieldset>
        ))}
      </div>
      <button
        type="submit"
        class={`button primary wide${props.guard.still ? "" : " settling"}`}
        disabled={props.blocked || !complete}
        onPointerDown={props.guard.down}
      >
        Answer
      </button>
    </form>
  );
}
