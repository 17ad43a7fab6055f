/*
 * The demo page's side of holdfast, written to be read: how a page waits for a status with nothing but <script>.
 *
 * One poll at a time: insert a script, wait until it has run or failed, decide by the code of its answer what to do next.
 * Everything that comes from outside is shown as text (textContent), never as HTML.
 */
(function () {
  'use strict';

  var KEPT = 50;       // statuses and polls shown; older ones go, so that a page left open for days does not grow
  var SHOWN = 2000;    // characters of an answer shown among the polls; a value may be 64 KiB long

  var key = keyOfUrl() || base64url(randomBytes(16));    // whoever knows the key can read its status: 128 bits, so that nobody guesses it
  var last = 0;                 // the newest version heard: only a newer one is an answer
  var failures = 0;             // scripts in a row that brought no answer
  var waitingSince = Date.now();

  // --- waiting ---------------------------------------------------------

  function poll() {
    // A fresh name each time: an answer that comes late finds no function, and no cache finds a URL it has seen.
    var name = 'holdfast_' + hex(randomBytes(8));
    var url = '/status/get?key=' + encodeURIComponent(key) + '&callback=' + name + '&last=' + last;
    var shown = showPoll(url);
    var script = document.createElement('script');
    var answer = null;

    window[name] = function (given) { answer = given; };

    // One way out, whatever happened. A script that ran without calling brought no answer either.
    script.onload = script.onerror = function () {
      delete window[name];
      script.parentNode.removeChild(script);
      shown(answer ? '/**/typeof ' + name + '==="function"&&' + name + '(' + JSON.stringify(answer) + ');'
                   : 'No answer: not reachable, refused or cut off.');
      if (answer) { heard(answer); } else { failed(); }
    };

    script.referrerPolicy = 'no-referrer';    // the page's address carries the key
    script.src = url;
    document.head.appendChild(script);
  }

  function heard(answer) {
    failures = 0;
    switch (answer.code) {
    case 0:     // a status
      last = answer.version;
      showStatus(answer);
      if (answer.final) { stop('Stopped: that was the final status'); } else { ask(); }
      break;
    case -1:    // none came in time: ask again at once, so that the next one finds us waiting
      ask();
      break;
    case -2:    // this node goes away; another one, or its successor, answers
    case -3:    // a limit is reached
    case -6:    // the status could not be read
      again(answer.retry_after_ms || 1000, { '-2': 'Draining', '-3': 'Busy', '-6': 'Unavailable' }[answer.code]);
      break;
    default:    // -4 gone, -5 a mistake: asking again would bring the same
      stop('Stopped: ' + answer.message);
    }
  }

  // A script says no more than that it failed, so it could be anything. Later each time, and at random: a thousand
  // pages that lost their server together do not come back together.
  function failed() {
    failures += 1;
    again(Math.min(30000, 500 * Math.pow(2, failures)) * (0.5 + Math.random() / 2), 'No answer');
  }

  function ask() {
    say(last ? 'answered' : 'waiting', last ? 'Answered. Waiting for the next' : 'Waiting for a status');
    poll();
  }

  function again(milliseconds, why) {
    say('retrying', why + '. Asking again in ' + duration(milliseconds));
    setTimeout(ask, milliseconds);
  }

  function stop(why) {
    say('stopped', why);
    clearInterval(ticking);
    byId('elapsed').textContent = 'nothing more';
  }

  // --- showing ---------------------------------------------------------

  function say(state, text) {
    var place = byId('state');
    place.setAttribute('data-state', state);
    if (place.textContent !== text) { place.textContent = text; }    // a screen reader speaks each change, so only changes
  }

  function showStatus(answer) {
    var now = new Date();
    var item = element('li', 'status');
    var about = item.appendChild(element('p', 'about'));
    var time = about.appendChild(element('time', '', now.toLocaleTimeString()));
    var value = item.appendChild(element('pre', '', JSON.stringify(answer.value, null, 2)));
    time.setAttribute('datetime', now.toISOString());
    about.appendChild(element('span', '', 'waited ' + duration(now - waitingSince)));
    about.appendChild(element('span', '', 'version ' + answer.version));
    if (answer.final) { about.appendChild(element('b', 'final', 'final')); }
    waitingSince = Date.now();
    byId('empty').hidden = true;
    putFirst(byId('statuses'), item);
    if (value.scrollHeight > value.clientHeight) { value.tabIndex = 0; }    // so that the keyboard scrolls it too
  }

  // Shows a poll as held; the function it returns shows what came of it.
  function showPoll(url) {
    var began = Date.now();
    var item = element('li', 'wire');
    var held = element('p', 'held', 'held open');
    item.appendChild(element('p', 'asked', 'GET ' + url));
    item.appendChild(held);
    putFirst(byId('wire'), item);
    return function (text) {
      held.textContent = duration(Date.now() - began) + ' later';
      item.appendChild(element('p', 'answered', text.length > SHOWN ? text.slice(0, SHOWN) + '\u2026' : text));
    };
  }

  function putFirst(list, item) {
    list.insertBefore(item, list.firstChild);
    if (list.children.length > KEPT) { list.removeChild(list.lastChild); }
  }

  function byId(id) { return document.getElementById(id); }

  function element(name, className, text) {
    var made = document.createElement(name);
    if (className) { made.className = className; }
    if (text !== undefined) { made.textContent = text; }
    return made;
  }

  function duration(milliseconds) {
    return milliseconds < 1000 ? Math.round(milliseconds) + ' ms' : (milliseconds / 1000).toFixed(1) + ' s';
  }

  // --- setting: the lines for the terminal -----------------------------

  function curl(more) {
    var to = document.querySelector('meta[name="holdfast-internal"]').content;
    return 'curl -d ' + quoted('{"key":' + ascii(JSON.stringify(key)) + more + '}') + ' ' + to + '/status/set';
  }

  // The key may come from the page's address, and this line is pasted into a shell: nothing in it may end the quotes, and
  // nothing that a terminal acts upon or does not show may be in it.
  function quoted(text) { return "'" + text.replace(/'/g, "'\\''") + "'"; }
  function ascii(json) {
    return json.replace(/[^ -~]/g, function (c) { return '\\u' + ('000' + c.charCodeAt(0).toString(16)).slice(-4); });
  }

  function copyOnClick(button) {
    var label = button.textContent;
    var code = byId(button.getAttribute('data-copies'));
    function done(text) {
      button.textContent = text;
      setTimeout(function () { button.textContent = label; }, 2000);
    }
    // Without a secure context there is no clipboard: then the line is selected, and the keyboard copies it.
    function select() {
      window.getSelection().selectAllChildren(code);
      done('Selected');
    }
    button.onclick = function () {
      if (!navigator.clipboard) { return select(); }
      navigator.clipboard.writeText(code.textContent).then(function () { done('Copied'); }, select);
    };
  }

  // --- the key ---------------------------------------------------------

  function keyOfUrl() {
    var given = /[?&]key=([^&]*)/.exec(location.search);
    try {
      return given && decodeURIComponent(given[1]);
    } catch (badEncoding) {
      return given[1];
    }
  }

  function randomBytes(count) { return Array.prototype.slice.call(crypto.getRandomValues(new Uint8Array(count))); }
  function hex(bytes) { return bytes.map(function (byte) { return ('0' + byte.toString(16)).slice(-2); }).join(''); }
  function base64url(bytes) {
    return btoa(String.fromCharCode.apply(null, bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
  }

  // --- start -----------------------------------------------------------

  byId('key').textContent = key;
  byId('same').href = '/demo?key=' + encodeURIComponent(key);
  byId('curl-set').textContent = curl(',"value":"hello"');
  byId('curl-final').textContent = curl(',"value":{"state":"done"},"final":true');
  Array.prototype.forEach.call(document.querySelectorAll('button[data-copies]'), copyOnClick);

  var ticking = setInterval(function () {
    byId('elapsed').textContent = Math.round((Date.now() - waitingSince) / 1000) + ' s';
  }, 1000);

  // Not before the page has loaded: the load event waits for every script inserted before it, and this one is held.
  if (document.readyState === 'complete') { ask(); } else { window.addEventListener('load', function () { setTimeout(ask); }); }
}());
