/**
 * Types of holdfast.js: a page waits for a status, and gets it the moment it is set. The script defines one global,
 * `holdfast`. The types of the module are in holdfast.d.mts.
 */

export as namespace holdfast;

/** Any JSON value. */
export type Value = null | boolean | number | string | Value[] | { [member: string]: Value };

/** What the server says: the answer to a poll, or what comes through a stream or a socket. */
export interface Answer<V = Value> {
  /** 0: a status; -1: timeout; -2: retry; -3: busy; -4: gone; -5: the request is wrong; -6: unavailable. */
  code: number;
  /** The code in a word, or the mistake in the request. */
  message: string;
  /** The status if `code` is 0, else null. */
  value: V | null;
  /** The version of the status or of the deletion. If there is neither, the `last` of the request. */
  version: number;
  /** Whether this is the last status: nothing comes after it. */
  final: boolean;
  /** Milliseconds to wait before the next poll, if `code` is -2, -3 or -6. */
  retry_after_ms?: number;
  /** The key, if it came through a socket. */
  key?: string;
}

/** An answer with a status. */
export interface Status<V = Value> extends Answer<V> {
  code: 0;
  value: V;
}

/**
 * The state of a watch:
 *
 * - `waiting`: all is well, and there is no newer status;
 * - `retrying`: polls fail (no connection, a full or draining server, no store), and are repeated;
 * - `offline`: the same, and the browser reports that it has no network;
 * - `stopped`: after `stop()`, after the final status, after `ongone` or `onerror`.
 */
export type State = "waiting" | "retrying" | "offline" | "stopped";

/**
 * The way in which a watch hears:
 *
 * - `script`: one script after another, each held until there is a status. It needs least: no CORS, no proxy that knows
 *   streams or sockets, no modern browser;
 * - `events`: a stream of server-sent events, one request for many statuses;
 * - `socket`: a WebSocket that all such watches of the page with the same `base` share;
 * - `auto`: the same as `script`, until `use` says otherwise.
 *
 * A watch goes on by scripts if a stream or a socket does not get through.
 */
export type Transport = "auto" | "script" | "events" | "socket";

export interface Options<V = Value> {
  /** Gets each status once, in the order of the versions. Older ones may be left out if there is a newer one. */
  onstatus?: (value: V, answer: Status<V>) => void;
  /** Is called if the key was deleted, or if a signed key has expired or is not valid. The watch stops. */
  ongone?: (answer: Answer<V>) => void;
  /**
   * Is called if the request is wrong: the message says why. Is also called after `giveUpAfter`: then the message is
   * `given up`, and there is no answer. The watch stops.
   */
  onerror?: (message: string, answer?: Answer<V>) => void;
  /**
   * Gets each change of the state, also the first. With `retrying` and `offline` comes the answer that caused them, if
   * there was one.
   */
  onstate?: (state: State, answer?: Answer<V>) => void;
  /**
   * The version that the page knows already: only newer ones are reported. 0 by default: if there is a status, it is
   * reported at once.
   */
  last?: number;
  /** The way in which the watch hears. `auto` by default. holdfast-script.js has scripts only, and ignores it. */
  transport?: Transport;
  /**
   * The seconds that the server may hold a script. 25 by default. With 0 the page asks once a second (short polling).
   */
  wait?: number;
  /**
   * The seconds after which the watch stops with `onerror("given up")`, even if statuses have come. If the machine
   * sleeps past that time, the watch stops when it wakes. Never by default.
   */
  giveUpAfter?: number;
  /** The nonce of the page's Content-Security-Policy. By default the nonce of the page's first script that has one. */
  nonce?: string;
}

/** A running watch. */
export interface Watch {
  /** Ends the watch: nothing more is reported. The server holds a script until it is answered or the page is left. */
  stop(): void;
  /**
   * Changes to another transport, from the newest status that was reported. No status is lost or reported twice.
   * holdfast-script.js has scripts only: there, this function does nothing.
   *
   * A script that was under way is not heard any more, but the server holds it until it is answered. Until then it
   * counts as a waiter, and over HTTP/1.1 it takes one of the connections that the browser opens to one host.
   */
  use(transport: Transport): void;
  /** The current state. */
  readonly state: State;
  /** The version of the newest status that was reported. Before the first one, the option `last`. */
  readonly last: number;
}

/**
 * Reports each status of a key from now on, until the final one.
 *
 * @param base the address of holdfast, such as `https://push.example.com`, or `""` if it is the address of the page
 * @param key the key to wait for
 */
export function watch<V = Value>(base: string, key: string, options?: Options<V>): Watch;

/**
 * Reports the first status of a key, and stops. If no status can come any more (the key was deleted, the request is
 * wrong), `value` is null and the answer says why.
 */
export function once<V = Value>(base: string, key: string, callback: (value: V | null, answer: Answer<V>) => void): Watch;
