// The messages of the connection, and the types that are codex's own or of docs/schema.

export type { Thread } from "@codex/v2/Thread";
export type { Turn } from "@codex/v2/Turn";
export type { TurnError } from "@codex/v2/TurnError";
export type { ThreadItem } from "@codex/v2/ThreadItem";
export type { UserInput } from "@codex/v2/UserInput";
export type { ThreadTokenUsage } from "@codex/v2/ThreadTokenUsage";
export type { RateLimitSnapshot } from "@codex/v2/RateLimitSnapshot";
export type { FileUpdateChange } from "@codex/v2/FileUpdateChange";
export type { ThreadResumeResponse } from "@codex/v2/ThreadResumeResponse";
export type { ThreadStartResponse } from "@codex/v2/ThreadStartResponse";
export type { ThreadItemsListResponse } from "@codex/v2/ThreadItemsListResponse";
export type { ThreadTurnsListResponse } from "@codex/v2/ThreadTurnsListResponse";
export type { ThreadItemEntry } from "@codex/v2/ThreadItemEntry";
export type { TurnStartParams } from "@codex/v2/TurnStartParams";
export type { TurnPlanStep } from "@codex/v2/TurnPlanStep";
export type { Model } from "@codex/v2/Model";
export type { ModelListResponse } from "@codex/v2/ModelListResponse";
export type { FsReadDirectoryResponse } from "@codex/v2/FsReadDirectoryResponse";
export type { ServerNotification } from "@codex/ServerNotification";
export type { ToolRequestUserInputQuestion } from "@codex/v2/ToolRequestUserInputQuestion";

/** A request's id: numbers for ours, whatever the app-server chose for its own. */
export type Id = number | string;

/** One message that comes in: a notification, a server request, or an answer. */
export interface Message {
  id?: Id;
  method?: string;
  params?: any;
  result?: any;
  error?: RpcFault;
  /** The journal's number of this message. */
  seq?: number;
  /** All of the thread up to this number has been given. */
  cursor?: number;
}

export interface RpcFault {
  code: number;
  message: string;
  data?: any;
}

/** A place in the broker's journal. */
export interface Cursor {
  epoch: string;
  seq: number;
}
