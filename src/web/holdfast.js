/*!
 * holdfast.js: a page waits for a status, and hears it the moment it is set. Apache-2.0
 */
/*
 * The readable source, in the JavaScript of 2009 (ES5) for browsers of 2011 and later. The program serves
 * holdfast.min.js, which `make web` makes from this file. The types are in holdfast.d.ts.
 *
 * One poll runs at a time: insert a script, wait until it has run or failed, and choose the next step by the code of
 * its answer. Nothing here touches the page until `watch` is called, so a server may import the module too.
 */
var holdfast = (function () {
  'use strict';

  var MARGIN = 10;            // seconds by which an answer may be overdue before its poll is dropped
  var PACE = 1000;            // ms from one poll to the next at least, even if the server answers "timeout" sooner
  var MAX_PAUSE = 30000;      // ms between two polls
  var MAX_TIMER = 0x7fffffff; // ms: browsers fire a longer timer at once
  var MAX_WORD = 0xffffffff;

  var EVENTS = ['online', 'offline', 'pageshow', 'visibilitychange'];

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

  function watch(base, key, options) {
    if (typeof base !== 'string' || typeof key !== 'string') {
      throw new TypeError('holdfast: base and key must be strings');
    }
    options = options || {};
    var wait = options.wait === undefined ? 25 : options.wait;
    var limit = ((+wait || 0) + MARGIN) * 1000;     // ms after which a poll is dropped
    var patience = (options.giveUpAfter == null ? NaN : options.giveUpAfter) * 1000;
    var due = Date.now() + patience;                // NaN is never reached
    var url = base.replace(/\/$/, '') + '/status/get?key=' + encodeURIComponent(key) + '&callback=';
    // Read it now, because the page may remove its scripts later.
    var nonce = options.nonce || (document.querySelector('script[nonce]') || options).nonce;
    var handle = { state: 'waiting', last: options.last || 0, stop: stop };

    var told;           // the last state that was passed to `onstate`
    var isTrouble;      // the last poll did not show that all is well; a full or draining server is no trouble
    var isFull;         // the server of the last poll had no room for one more waiter
    var failures = 0;   // scripts that failed since the last status or the last answer to a held poll
    var asked;          // when the last poll began
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

    function ask() {
      // A poll after trouble is not held, so that its answer shows at once whether all is well again. A poll before the
      // page has loaded is not held either: the browser would show the page as loading until the answer comes.
      isBrief = isTrouble || !isLoaded();
      if (!isTrouble && !isFull && !tell('waiting')) { return; }

      var name = freshName();
      var script = document.createElement('script');
      var answer, isSent;

      // Only the first call counts, because a proxy may send an answer twice. The function is removed when the poll is
      // over. The script of a later answer checks whether there is a function, and then calls none.
      window[name] = function (given) { answer = answer || given; };
      end = function () {
        delete window[name];
        end = script.onload = script.onerror = null;
        if (script.parentNode) { script.parentNode.removeChild(script); }
      };
      script.onload = script.onerror = function () { settle(answer); };
      script.referrerPolicy = 'no-referrer';    // the page's address may contain the key
      if (nonce) { script.setAttribute('nonce', nonce); }

      asked = Date.now();
      attempt(function () {
        script.src = scriptUrl(url + name + '&last=' + handle.last + '&wait=' + (isBrief ? 0 : wait));
        document.head.appendChild(script);
        isSent = true;
      });
      if (isSent) { schedule(isFull ? held : giveUpPoll, isFull ? PACE : limit); } else { schedule(giveUpPoll, 0); }
    }

    // Runs if a server that was full has not answered for a while. It has room now, and holds the poll.
    function held() {
      isFull = false;
      if (tell('waiting')) { schedule(giveUpPoll, limit - PACE); }
    }

    function giveUpPoll() { settle(); }

    // Ends the poll, with an answer or without one, and plans the next poll.
    function settle(answer) {
      var code = answer ? answer.code : NaN;
      var isNews = code === 0 && typeof answer.version === 'number' && answer.version > handle.last;
      var delay = answer && answer.retry_after_ms >= 100 ? Math.min(MAX_PAUSE, answer.retry_after_ms) : PACE;
      end();

      if (isNews) {
        handle.last = answer.version;
        attempt(options.onstatus, answer.value, answer);
      } else if (code === -4) {
        attempt(options.ongone, answer);
      } else if (code === -5) {
        attempt(options.onerror, answer.message, answer);
      }
      if (told === 'stopped') { return; }
      if (isNews && answer.final || code === -4 || code === -5) { return stop(); }

      if (isNews || code === -1) {
        isTrouble = isFull = false;
        if (isNews || !isBrief) { failures = 0; }
        // Ask again at once, unless that is too often. A timer of 0 ms would not do: browsers delay the timers of
        // hidden pages.
        delay = isNews || isBrief && isLoaded() ? 0 : Math.min(PACE, asked + PACE - Date.now());
        if (delay <= 0) { return ask(); }
      } else {
        // A node that is full (-3) or drains (-2) is no trouble: the next poll may be held without a check before it.
        isFull = code === -3;
        isTrouble = !isFull && code !== -2;
        if (!(code < 0)) {
          // A failed script gives no reason. The pauses grow, and are random, so that pages that lost their server at
          // the same moment do not all return at the same moment.
          failures += 1;
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
      if (Date.now() >= due) { return giveUp(); }
      if (navigator.onLine === false) { return tell('offline'); }
      if (event.type === 'visibilitychange' && document.hidden) { return; }
      if (tell(isTrouble || isFull ? 'retrying' : 'waiting') && !(end && !event.persisted && Date.now() - asked < limit)) {
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
