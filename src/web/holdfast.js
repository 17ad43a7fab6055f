/*! holdfast.js, Apache-2.0 */
/*
 * The readable source, in the JavaScript of 2009 (ES5) for browsers of 2011 and later. The program serves
 * holdfast.min.js and holdfast-script.min.js, which `make web` makes from this file. The types are in holdfast.d.ts.
 *
 * One poll of a watch runs at a time: insert a script, wait until it has run or failed, and choose the next step by the
 * code of its answer. If the page asks for a wire, a poll lasts as long as the stream or the socket brings something.
 * Nothing here touches the page until `watch` is called, so a server may import the module too.
 */
var holdfast = (function () {
  'use strict';

  // False in holdfast-script.js, which `make web` makes from this file too. It has script polls only.
  var WIRES = true;

  var HOLD = 25;              // seconds that the server may hold a poll, or that a stream or a socket may be silent
  var MARGIN = 10000;         // ms by which an answer may be overdue before its poll is dropped
  var FIRST = 5000;           // ms in which the first byte must come through a stream or a socket
  var PACE = 1000;            // ms from one poll to the next at least, even if the server answers "timeout" sooner
  var MAX_PAUSE = 30000;      // ms between two polls
  var MAX_TIMER = 0x7fffffff; // ms: browsers fire a longer timer at once
  var MAX_WORD = 0xffffffff;
  var MAX_TEXT = 1e6;         // characters of one stream, which the browser keeps until the stream ends
  var MAX_KEYS = 32;          // keys of one socket

  var EVENTS = WIRES
    ? ['online', 'offline', 'pageshow', 'visibilitychange', 'pagehide']
    : ['online', 'offline', 'pageshow', 'visibilitychange'];

  // The ways to wait, by the names of the option `transport`. A wire gets the address of the server and a poll:
  // its `key` and `watch`, `alive()`, which the wire calls at each sign of life, and `settle(answer, goesOn)`. When the
  // poll is over, these do nothing. The wire adds `end(isDead)` and, if it can ask for a sign of life, `probe()`.
  var wires = WIRES && { auto: 0, script: 0, events: stream, socket: join };

  var sockets = [];           // those that are open, or about to be

  var policy;

  // Marks the URL as trusted for pages that require Trusted Types and allow `trusted-types holdfast`.
  function scriptUrl(url) {
    if (!policy) {
      policy = { createScriptURL: function (given) { return given; } };
      try { policy = window.trustedTypes.createPolicy('holdfast', policy); } catch (unknownOrRefused) { /* use none */ }
    }
    return policy.createScriptURL(url);
  }

  // Returns a callback name of 64 random bits. If two pages ask for the same URL, the browser's cache makes one wait
  // for the other, in Chromium for up to 20 s.
  function freshName() {
    var crypto = window.crypto;
    var words = crypto ? crypto.getRandomValues(new Uint32Array(2)) : [Math.random() * MAX_WORD, Math.random() * MAX_WORD];
    return 'holdfast_' + (words[0] >>> 0).toString(36) + '_' + (words[1] >>> 0).toString(36);
  }

  function later(task, milliseconds) { return setTimeout(task, Math.min(MAX_TIMER, milliseconds)); }

  // Runs `task`. If it throws, the page's own error handler gets the error, and the watch goes on. A function of the
  // page may throw, and so may the insertion of a script that the page's policy forbids.
  function attempt(task, first, second) {
    try {
      if (task) { task(first, second); }
    } catch (error) {
      setTimeout(function () { throw error; });
    }
  }

  function nothing() {}

  function parse(text) {
    try { return JSON.parse(text); } catch (noJson) { /* return undefined */ }
  }

  // Waits by a stream of server-sent events. Not by an EventSource, which shows the page neither the comments that say
  // that the stream is alive, nor why the server refuses one.
  function stream(base, poll) {
    var request = new XMLHttpRequest();
    var read = 0;       // characters of the complete events
    var events = 0;     // complete ones; the first has no data

    poll.end = function () { request.abort(); };
    request.onreadystatechange = function () {
      var text = request.responseText;
      var stop, lines;
      // The page of a captive portal is no sign of life.
      if (/^retry:/.test(text)) { poll.alive(); }
      while ((stop = text.indexOf('\n\n', read) + 1)) {
        lines = text.slice(read, stop).split('\ndata:');
        read = stop + 1;
        events += 1;
        // A value is cut into lines at its white space only.
        if (lines[1]) { poll.settle(parse(lines.slice(1).join('')), true); }
      }
      if (request.readyState > 3 || read > MAX_TEXT) {
        // The server ends a stream after a while. nginx sends one without events if it reaches no node. A refusal is JSON.
        // If the connection broke, there is neither a status nor a text.
        poll.settle(request.status && events > 1 ? { code: -1 } : parse(text));
      }
    };
    request.open('GET', base + '/status/events?key=' + encodeURIComponent(poll.key) + '&last=' + poll.watch.last);
    request.send();
  }

  // Waits by a socket that the page's watches of one base share.
  function join(base, poll) {
    var socket = sockets.filter(function (one) { return one.base === base && one.polls.length < MAX_KEYS; })[0];
    if (!socket) { sockets.push(socket = connect(base)); }
    socket.add(poll);
  }

  function connect(base) {
    var web = new WebSocket(new URL(base + '/status/ws', document.baseURI).href.replace('http', 'ws'));
    var isProbed;       // a message must come soon; undefined until the socket is open
    var socket = { base: base, polls: [], add: add };

    function add(poll) {
      socket.polls.push(poll);
      poll.probe = probe;
      poll.end = function (isDead) {
        socket.polls = socket.polls.filter(function (one) { return one !== poll; });
        if (isDead || !socket.polls[0]) { shut(); } else if (!same(poll)[0]) { say({ unwatch: poll.key }); }
      };
      begin(poll);
      if (isProbed === false) { poll.alive(); }
    }

    function same(poll) { return socket.polls.filter(function (one) { return one.key === poll.key; }); }

    // Watches the key of a poll. The server knows a key once, with one version. If two watches have the key, an old
    // status is sent once more, and each takes what is new to it.
    function begin(poll) { say({ watch: poll.key, last: same(poll)[1] ? 0 : poll.watch.last }); }

    function say(message) {
      if (web.readyState === 1) { web.send(JSON.stringify(message)); }
    }

    // Asks for a sign of life, because pages do not see the pings of a socket.
    function probe() {
      if (!isProbed) { say({}); }
      isProbed = true;
    }

    // Closes the socket, and settles the polls that are left: with `code`, if the server gave a reason.
    function shut(code, pause) {
      var left = socket.polls;
      socket.polls = [];
      sockets = sockets.filter(function (one) { return one !== socket; });
      web.onmessage = web.onclose = null;
      // Browsers complain if a socket is closed before it is open.
      web.onopen = function () { web.close(); };
      if (web.readyState) { web.close(); }
      left.forEach(function (poll) {
        poll.settle(code && {
          code: code,
          message: code < -2 ? 'busy' : 'retry',
          value: null,
          version: poll.watch.last,
          final: false,
          retry_after_ms: pause
        });
      });
    }

    web.onopen = function () {
      probe();
      socket.polls.forEach(begin);
    };
    web.onmessage = function (event) {
      var answer = parse(event.data) || {};
      isProbed = false;
      socket.polls.forEach(function (poll) {
        poll.alive();
        // Without a key comes the answer `{}`, or a mistake that may be that of any poll.
        if (answer.key ? answer.key === poll.key : answer.code) { poll.settle(answer, true); }
      });
    };
    web.onclose = function (event) {
      // The reason is `retry_after_ms=N`.
      shut({ 1001: -2, 1013: -3 }[event.code], +event.reason.slice(15));
    };
    return socket;
  }

  function watch(base, key, options) {
    if (typeof base !== 'string' || typeof key !== 'string') {
      throw new TypeError('holdfast: base and key must be strings');
    }
    options = options || {};
    var wait = options.wait === undefined ? HOLD : options.wait;
    var patience = (options.giveUpAfter == null ? NaN : options.giveUpAfter) * 1000;
    var due = Date.now() + patience;                // NaN is never reached
    base = base.replace(/\/$/, '');
    var url = base + '/status/get?key=' + encodeURIComponent(key) + '&callback=';
    // Read it now, because the page may remove its scripts later.
    var nonce = options.nonce || (document.querySelector('script[nonce]') || options).nonce;
    var handle = { state: 'waiting', last: options.last || 0, stop: stop, use: WIRES ? use : nothing };

    var wire;           // the stream or the socket that the page has asked for, if any
    var told;           // the last state that was passed to `onstate`
    var isTrouble;      // the last poll did not show that all is well; a full or draining server is no trouble
    var isFull;         // the server of the last poll was full or draining: the next poll may be refused at once, too
    var failures = 0;   // polls that failed since the last status or the last answer to a held poll
    var strikes = 0;    // wires in a row that brought nothing, although scripts got through. -1: no script ever did.
                        // 4: one or two brought nothing, and a script failed since: stay with scripts until one is held
    var isScripted;     // a script got through
    var poll;           // the last poll, if it is one of the wire
    var isHeard;        // it has given a sign of life
    var asked;          // when the last poll began
    var sign;           // when it last gave a sign of life
    var limit;          // ms from there after which it is dropped
    var isBrief;        // the server may not hold the last poll
    var end;            // removes the poll that is under way, if there is one
    var timer;          // runs until that poll is dropped, or until the next one begins
    var quit;           // runs until `giveUpAfter`

    // Sets the only timer, in place of the one that is set already. A listener of the page may cause an event that
    // leads back here.
    function schedule(task, milliseconds) {
      clearTimeout(timer);
      timer = later(task, milliseconds);
    }

    // Reports a new state to the page. Returns whether the watch goes on.
    function tell(state, answer) {
      if (told !== state) {
        told = handle.state = state;
        attempt(options.onstate, state, answer);
      }
      return told !== 'stopped';
    }

    function isLoaded() { return document.readyState === 'complete'; }

    // Changes to another transport, from the version that the page has.
    function use(transport) {
      wire = wires[transport];
      if (wire === undefined) { throw new TypeError('holdfast: no transport ' + transport); }
      strikes = 0;
      if (end) {
        end();
        schedule(ask, 0);
      }
    }

    function ask() {
      if (!isTrouble && !isFull && !tell('waiting')) { return; }

      // After two strikes the watch stays with scripts. After trouble a script shows whether the server is there. If no
      // script has ever got an answer, try the wire too: the page may allow no scripts of the server.
      poll = WIRES && wire && strikes < (isTrouble ? 0 : 2) && { key: key, watch: handle, settle: settle, end: nothing, alive: alive };
      limit = (WIRES && poll ? HOLD : +wait || 0) * 1000 + MARGIN;
      isBrief = !(WIRES && poll) && (isTrouble || !isLoaded());
      asked = sign = Date.now();
      if (WIRES && poll) { return open(); }

      var name = freshName();
      var script = document.createElement('script');
      var answer, isSent;

      // Only the first call counts, because a proxy may send an answer twice. The function is removed when the poll is
      // over. The script of a later answer checks whether there is a function, and then calls none.
      window[name] = function (given) { isScripted = answer = answer || given; };
      end = function () {
        delete window[name];
        end = script.onload = script.onerror = null;
        if (script.parentNode) { script.parentNode.removeChild(script); }
      };
      script.onload = script.onerror = function () { settle(answer); };
      script.referrerPolicy = 'no-referrer';    // the page's address may contain the key
      if (nonce) { script.setAttribute('nonce', nonce); }

      attempt(function () {
        script.src = scriptUrl(url + name + '&last=' + handle.last + '&wait=' + (isBrief ? 0 : wait));
        document.head.appendChild(script);
        isSent = true;
      });
      if (isSent) { schedule(isFull ? held : giveUpPoll, isFull ? PACE : limit); } else { schedule(giveUpPoll, 0); }
    }

    function open() {
      isHeard = false;
      end = function (isDead) {
        end = null;
        poll.alive = poll.settle = nothing;
        poll.end(isDead);
      };
      schedule(giveUpPoll, FIRST);
      try {
        wire(base, poll);
      } catch (unsupported) {
        end();
        strikes = 2;
        ask();
      }
    }

    // Takes a sign of life of the wire. The second one ends a row of failures.
    function alive() {
      sign = Date.now();
      if (isHeard) { failures = 0; }
      if (!isTrouble && !isFull) { schedule(check, limit - MARGIN); } else if (!isHeard) { schedule(held, PACE); }
      isHeard = true;
    }

    // Runs if the wire has been silent. Asks it for a sign of life. This timer and the next one are no single one,
    // because browsers delay those of hidden pages, and run all that are overdue together.
    function check() {
      if (poll.probe) { poll.probe(); }
      schedule(giveUpPoll, MARGIN);
    }

    // Runs if a server that was full or draining has not answered for a while. It holds the poll, so all is well.
    function held() {
      isTrouble = isFull = false;
      if (tell('waiting')) { schedule(WIRES && poll ? check : giveUpPoll, limit - PACE); }
    }

    function giveUpPoll() { settle(); }

    // Takes an answer, or the lack of one. Unless the wire goes on (`goesOn`) behind a status, ends the poll and plans
    // the next one.
    function settle(answer, goesOn) {
      var code = answer ? answer.code : NaN;
      var isNews = code === 0 && typeof answer.version === 'number' && answer.version > handle.last;
      var delay = answer && answer.retry_after_ms >= 100 ? Math.min(MAX_PAUSE, answer.retry_after_ms) : PACE;
      goesOn = WIRES && goesOn && code === 0 && !answer.final;
      if (!goesOn) { end(!answer); } else if (!isNews) { return; }

      if (isNews) {
        handle.last = answer.version;
        attempt(options.onstatus, answer.value, answer);
      } else if (code === -4) {
        attempt(options.ongone, answer);
      } else if (WIRES && poll && code === -5) {
        // Ask by a script, which says what is wrong. The server may also allow fewer keys on a socket.
        strikes = 2;
        return ask();
      } else if (code === -5) {
        attempt(options.onerror, answer.message, answer);
      }
      if (told === 'stopped') { return; }
      if (isNews && answer.final || code === -4 || code === -5) { return stop(); }

      if (isNews || code === -1) {
        isTrouble = isFull = false;
        if (isNews || !isBrief) {
          failures = 0;
          if (WIRES) { strikes %= 3; }    // try a wire once more that brought nothing before an outage
        }
        if (WIRES && goesOn) { return tell('waiting'); }
        // Ask again at once, unless that is too often. A timer of 0 ms would not do: browsers delay the timers of
        // hidden pages.
        delay = isNews || isBrief && isLoaded() ? 0 : Math.min(PACE, asked + PACE - Date.now());
        if (delay <= 0) { return ask(); }
      } else {
        // A node that is full (-3) or drains (-2) is no trouble: the next poll may be held without a check before it.
        // But only when it has been held for a while, all is well.
        isFull = code === -3 || code === -2;
        isTrouble = !isFull;
        if (!(code < 0)) {
          // A failed script gives no reason. The pauses grow, and are random, so that pages that lost their server at
          // the same moment do not all return at the same moment.
          failures += 1;
          if (WIRES) {
            strikes = !poll ? isScripted ? strikes && 4 : -1 : isHeard ? 0 : Date.now() - asked < FIRST ? strikes + 1 : 2;
          }
          delay = 500 + Math.random() * (Math.min(MAX_PAUSE, 1000 * Math.pow(2, failures)) - 500);
        }
        if (!tell(navigator.onLine === false ? 'offline' : 'retrying', answer)) { return; }
      }
      schedule(ask, delay);
    }

    // Asks at once if the watch pauses, because an event suggests that it may succeed now. Replaces a poll if the
    // machine slept past its end, or if the page comes back from the back/forward cache: some browsers end the polls of
    // such a page without an event.
    function wake(event) {
      if (WIRES && event.type === 'pagehide') {
        // A page with an open connection may not be kept in the back/forward cache. If the page stays after all, go on.
        if (poll && end) {
          end();
          schedule(ask, PACE);
        }
        return;
      }
      if (Date.now() >= due) { return giveUp(); }
      if (navigator.onLine === false) { return tell('offline'); }
      if (event.type === 'visibilitychange' && document.hidden) { return; }
      if (tell(isTrouble || isFull ? 'retrying' : 'waiting') && !(end && !event.persisted && Date.now() - sign < limit)) {
        if (end) { end(); }
        // Ask in a task of its own. The load event comes just before `pageshow`, and the browser shows the page as
        // loading until the scripts that listeners insert have come.
        schedule(ask, 0);
      }
    }

    function giveUp() {
      attempt(options.onerror, 'given up');
      stop();
    }

    function stop() {
      if (end) { end(); }
      clearTimeout(timer);
      clearTimeout(quit);
      EVENTS.forEach(function (name) { removeEventListener(name, wake, true); });
      tell('stopped');
    }

    if (WIRES) { use(options.transport || 'auto'); }
    // Listen in the capture phase, so that the window gets all of these events, also those of the document.
    EVENTS.forEach(function (name) { addEventListener(name, wake, true); });
    if (!isNaN(patience)) { quit = later(giveUp, patience); }
    schedule(ask, 0);    // later, so that the page has the handle before anything is reported
    return handle;
  }

  function once(base, key, callback) {
    function done(answer) {
      handle.stop();
      callback(answer.value, answer);
    }
    var handle = watch(base, key, {
      onstatus: function (value, answer) { done(answer); },
      ongone: done,
      onerror: function (message, answer) { done(answer); }
    });
    return handle;
  }

  return { watch: watch, once: once };
}());
