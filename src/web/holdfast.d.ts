/**
 * Types of holdfast.js: a page waits for a status, and hears it the moment it is set. As a script there is one global,
 * `holdfast`; for the module see holdfast.d.mts.
 */

export as namespace holdfast;

/** Any JSON. */
export type Value = null | boolean | number | string | Value[] | { [member: string]: Value };

/** What the server answers to a poll. */
export interface Answer<V = Value> {
  /** 0: a status; -1: timeout; -2: retry; -3: busy; -4: gone; -5: the request is wrong; -6: unavailable. */
  code: number;
  /** The code in a word, or what is wrong. */
  message: string;
  /** The status, where `code` is 0; else null. */
  value: V | null;
  /** The version of the status, or of the deletion; else `last` again. */
  version: number;
  /** Nothing comes after this. */
  final: boolean;
  /** Milliseconds to wait before the next poll, where `code` is -2, -3 or -6. */
  retry_after_ms?: number;
}

/** An answer with a status. */
export interface Status<V = Value> extends Answer<V> {
  code: 0;
  value: V;
}

/**
 * - `waiting`: all is well, and nothing newer is known;
 * - `retrying`: polls bring nothing (no connection, a full or leaving server, no store), and are tried again;
 * - `offline`: the same, and the browser says that it has no network;
 * - `stopped`: by `stop()`, after the final status, after `ongone` or `onerror`.
 */
export type State = "waiting" | "retrying" | "offline" | "stopped";

export interface Options<V = Value> {
  /** Each status once, in the order of their versions; older ones may be passed over where a newer one is there. */
  onstatus?: (value: V, answer: Status<V>) => void;
  /** The key was deleted, or, signed, has expired or is not genuine. The watch stops. */
  ongone?: (answer: Answer<V>) => void;
  /** The request is wrong, and the message says how; or `given up`, without an answer. The watch stops. */
  onerror?: (message: string, answer?: Answer<V>) => void;
  /** Each change of the state, the first one included; `retrying` and `offline` with the answer that led to it, if one did. */
  onstate?: (state: State, answer?: Answer<V>) => void;
  /** The version that the page knows already: only newer ones are told. 0 by default: whatever is known is told at once. */
  last?: number;
  /** How many seconds the server may hold a poll. 25 by default; 0 asks once a second instead (short polling). */
  wait?: number;
  /**
   * Seconds after which the watch stops with `onerror("given up")`, whatever has come until then; a machine that slept
   * through them gives up when it wakes. Never by default.
   */
  giveUpAfter?: number;
  /** The nonce of the page's Content Security Policy. By default that of the page's first script that has one. */
  nonce?: string;
}

/** A watch under way. */
export interface Watch {
  /** Ends it: nothing more is told. A poll that the server holds stays there until it is answered or the page is left. */
  stop(): void;
  /** How it goes. */
  readonly state: State;
  /** The version of the newest status that was told, or what `last` was. */
  readonly last: number;
}

/**
 * Tells each status of a key from now on, until the final one.
 *
 * @param base where holdfast is, as in `https://push.example.com`; `""` where it is where the page is
 * @param key what is waited for
 */
export function watch<V = Value>(base: string, key: string, options?: Options<V>): Watch;

/**
 * Tells the first status of a key, and stops. Where none can come any more (the key was deleted, the request is wrong),
 * `value` is null and the answer says why.
 */
export function once<V = Value>(base: string, key: string, callback: (value: V | null, answer: Answer<V>) => void): Watch;
