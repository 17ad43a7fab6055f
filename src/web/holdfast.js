/*!
 * holdfast.js: a page waits for a status, and hears it the moment it is set. Apache-2.0
 */
/*
 * The source, written to be read, in the JavaScript of 2009 (ES5), for the browsers of 2011 and later. What is served is
 * holdfast.min.js, made of this file by `make web`; types are in holdfast.d.ts.
 *
 * One poll at a time: insert a script, wait until it has run or failed, decide by the code of its answer what to do
 * next. Nothing here touches the page until `watch` is called, so that a server may import it too.
 */
var holdfast = (function () {
  'use strict';

  var MARGIN = 10;            // seconds beyond the longest hold after which a proxy must have cut the answer off
  var PACE = 1000;            // ms: a server that says "timeout" sooner than that is not asked more often
  var MAX_PAUSE = 30000;      // ms between two polls
  var MAX_TIMER = 0x7fffffff; // ms: browsers run a longer timer at once
  var MAX_WORD = 0xffffffff;

  var EVENTS = ['online', 'offline', 'pageshow', 'visibilitychange'];

  var policy;

  // Pages that demand Trusted Types allow this by `trusted-types holdfast`.
  function scriptUrl(url) {
    if (!policy) {
      policy = { createScriptURL: function (given) { return given; } };
      try { policy = window.trustedTypes.createPolicy('holdfast', policy); } catch (unknownOrRefused) { /* as it is */ }
    }
    return policy.createScriptURL(url);
  }

  // 64 random bits. Pages that ask for one URL wait for each other in the browser's cache, in Chromium for 20 s.
  function freshName() {
    var crypto = window.crypto;
    var words = crypto ? crypto.getRandomValues(new Uint32Array(2)) : [Math.random() * MAX_WORD, Math.random() * MAX_WORD];
    return 'holdfast_' + (words[0] >>> 0).toString(36) + '_' + (words[1] >>> 0).toString(36);
  }

  function later(task, milliseconds) { return setTimeout(task, Math.min(MAX_TIMER, milliseconds)); }

  // What the page does wrong in its functions, or forbids us, is told by its own error handler, and ends no watch.
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
    var limit = ((+wait || 0) + MARGIN) * 1000;     // after so many ms a poll is given up
    var patience = (options.giveUpAfter == null ? NaN : options.giveUpAfter) * 1000;
    var due = Date.now() + patience;                // NaN is never reached
    var url = base.replace(/\/$/, '') + '/status/get?key=' + encodeURIComponent(key) + '&callback=';
    // Now, as the page may take its scripts away later.
    var nonce = options.nonce || (document.querySelector('script[nonce]') || options).nonce;
    var handle = { state: 'waiting', last: options.last || 0, stop: stop };

    var told;           // the state that `onstate` heard last
    var isTrouble;      // the last poll brought nothing to rely on
    var isFull;         // its server had no room for one more that waits
    var failures = 0;   // scripts that did not load, since one was held and answered
    var asked;          // when the last poll began
    var isBrief;        // it is answered at once
    var end;            // takes away the poll that is in the air, if one is
    var timer;          // until that is given up, or the next begins
    var quit;           // until `giveUpAfter`

    // One at a time: whatever is told may lead the page to do something that comes back here.
    function schedule(task, milliseconds) {
      clearTimeout(timer);
      timer = later(task, milliseconds);
    }

    function tell(state, answer) {
      if (told !== state) {
        told = handle.state = state;
        attempt(options.onstate, state, answer);
      }
      return told !== 'stopped';
    }

    function isLoaded() { return document.readyState === 'complete'; }

    function ask() {
      // A poll after trouble is not held: its answer says that all is well. Nor is one before the page has loaded, as
      // the browser would show the page as loading until it is answered.
      isBrief = isTrouble || !isLoaded();
      if (!isTrouble && !isFull && !tell('waiting')) { return; }

      var name = freshName();
      var script = document.createElement('script');
      var answer, isSent;

      // Once: a proxy that doubles an answer is not to be heard twice. Gone when the poll is over, and answers that
      // come later find no function: they look first.
      window[name] = function (given) { answer = answer || given; };
      end = function () {
        delete window[name];
        end = script.onload = script.onerror = null;
        if (script.parentNode) { script.parentNode.removeChild(script); }
      };
      script.onload = script.onerror = function () { settle(answer); };
      script.referrerPolicy = 'no-referrer';    // the page's address may carry the key
      if (nonce) { script.setAttribute('nonce', nonce); }

      asked = Date.now();
      attempt(function () {
        script.src = scriptUrl(url + name + '&last=' + handle.last + '&wait=' + (isBrief ? 0 : wait));
        document.head.appendChild(script);
        isSent = true;
      });
      if (isSent) { schedule(isFull ? held : giveUpPoll, isFull ? PACE : limit); } else { schedule(giveUpPoll, 0); }
    }

    // No answer for a while: there was room.
    function held() {
      isFull = false;
      if (tell('waiting')) { schedule(giveUpPoll, limit - PACE); }
    }

    function giveUpPoll() { settle(); }

    // The poll is over: with an answer, or without one.
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
        // At once, unless that might be too often. Without a timer, which a hidden page's browser would delay.
        delay = isNews || isBrief && isLoaded() ? 0 : Math.min(PACE, asked + PACE - Date.now());
        if (delay <= 0) { return ask(); }
      } else {
        // That a node is full (-3) or leaves (-2) is no trouble: there is nothing to find out before the next is held.
        isFull = code === -3;
        isTrouble = !isFull && code !== -2;
        if (!(code < 0)) {
          // A script says no more than that it failed. Later each time, and at random: pages that lost their server
          // together do not come back together.
          failures += 1;
          delay = 500 + Math.random() * (Math.min(MAX_PAUSE, 1000 * Math.pow(2, failures)) - 500);
        }
        if (!tell(navigator.onLine === false ? 'offline' : 'retrying', answer)) { return; }
      }
      schedule(ask, delay);
    }

    // Something has changed: whoever pauses asks now. A poll that slept through its end is not waited for, nor one of a
    // page that was kept while another was shown: some browsers end it without a word.
    function wake(event) {
      if (Date.now() >= due) { return giveUp(); }
      if (navigator.onLine === false) { return tell('offline'); }
      if (event.type === 'visibilitychange' && document.hidden) { return; }
      if (tell(isTrouble || isFull ? 'retrying' : 'waiting') && !(end && !event.persisted && Date.now() - asked < limit)) {
        if (end) { end(); }
        // In a task of its own: the load event, before `pageshow`, waits for scripts that its listeners insert.
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

    // Captured on their way to the document, so that one object has them all.
    EVENTS.forEach(function (name) { addEventListener(name, wake, true); });
    if (!isNaN(patience)) { quit = later(giveUp, patience); }
    schedule(ask, 0);    // so that the page has the handle before it hears anything
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
