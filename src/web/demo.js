/*
 * The demo's screen: a login by QR code. Your own page needs only the call of `holdfast.watch` in `start`: a key, and
 * functions that are called when a status comes.
 *
 * Everything from outside is shown as text (textContent), never as HTML.
 */
(function () {
  'use strict';

  var SHOWN = 80;       // characters of a name that are shown at most; a name from a terminal may be longer
  var PAUSE = 1000;     // ms between two tries to get a code
  var LATE = 3;         // seconds to wait for a button that was pressed in the last moment

  var id;               // of the login; it is in the code, so anyone who sees the code may press the phone's buttons
  var key;              // for the polls; it stays in this page, so that nobody else gets the status
  var watch;            // of the key
  var expires;          // when the code expires, by this browser's clock
  var calm = 'waiting'; // the state to show again when trouble is over
  var ticking, starting;

  // --- a code, and the wait for its status ------------------------------

  function start(state) {
    calm = state;
    clearTimeout(starting);
    byId('again').hidden = true;
    post('/demo/code', function (answer) {
      if (!answer || answer.code !== 0) {
        trouble(navigator.onLine === false ? 'offline' : 'retrying', answer);
        starting = setTimeout(start, PAUSE, state);
        return;
      }
      id = answer.id;
      key = answer.key;
      expires = Date.now() + answer.expires_in_ms;
      showCode();
      show(calm);
      watch = holdfast.watch('', key, { transport: way(), onstatus: heard, ongone: renew, onerror: failed, onstate: changed });
      ticking = setInterval(tick, 500);
      tick();
    });
  }

  function heard(value) {
    switch (value && value.state) {
    case 'scanned':
      calm = 'scanned';
      show(calm);
      break;
    case 'confirmed':
      var user = String(value.user || '?');
      byId('avatar').textContent = firstOf(user);
      end('confirmed', words('confirmed', words.cut(user, SHOWN)), 'signOut');
      break;
    case 'refused':
      end('refused', words('refused'), 'newCode');
      break;
    }
  }

  function changed(state, answer) {
    if (state === 'waiting') {
      show(calm);
    } else if (state !== 'stopped') {
      trouble(state, answer);
    }
  }

  function failed(message) { end('failed', words('failed', words.cut(message, SHOWN)), 'newCode'); }

  function way() { return document.querySelector('[name="way"]:checked').value; }

  function stop() {
    if (watch) { watch.stop(); }
    clearInterval(ticking);
  }

  function end(state, text, button) {
    stop();
    show(state, text);
    byId('again').textContent = words(button);
    byId('again').hidden = false;
  }

  // Gets a new code, because this one has expired or its key was deleted.
  function renew() {
    stop();
    show('expired');
    starting = setTimeout(start, PAUSE, 'expired');
  }

  function tick() {
    var left = Math.max(0, Math.ceil((expires - Date.now()) / 1000));
    byId('left').textContent = Math.floor(left / 60) + ':' + ('0' + left % 60).slice(-2);
    // A press in time may still be on its way, or it came while this machine slept: wait a little for it. If the server
    // cannot be reached, keep the watch, which comes back to `waiting` when it can.
    if (left === 0 && watch.state === 'waiting') {
      stop();
      watch = holdfast.watch('', key, { last: watch.last, wait: 0, giveUpAfter: LATE, onstatus: heard, ongone: renew, onerror: renew });
    }
  }

  // --- showing ---------------------------------------------------------

  function trouble(state, answer) {
    var name = state + (answer && answer.code || '');
    show(state, words(words.has(name) ? name : state));
  }

  function show(state, text) {
    text = text || words(state);
    var place = byId('state');
    byId('login').setAttribute('data-state', state);
    if (place.textContent !== text) { place.textContent = text; }    // only a new one: screen readers speak each change
  }

  function showCode() {
    var reachable = meta('holdfast-phone');
    var loopback = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
    var link = (loopback && reachable || location.origin) + '/demo/phone?id=' + encodeURIComponent(id);
    byId('loopback').hidden = !loopback || reachable !== '';
    byId('link').href = link;
    byId('qr').src = '/demo/qr.svg?link=' + encodeURIComponent(link);
    byId('curl').textContent = 'curl -d ' +
      quoted('{"key":' + ascii(JSON.stringify(id)) + ',"value":{"state":"confirmed","user":"Terminal"},"final":true}') +
      ' ' + meta('holdfast-internal') + '/status/set';
  }

  // The line is pasted into a shell. So nothing in it may end the quotes, and it may contain no character that a
  // terminal acts on or does not show.
  function quoted(text) { return "'" + text.replace(/'/g, "'\\''") + "'"; }
  function ascii(json) {
    return json.replace(/[^ -~]/g, function (c) { return '\\u' + ('000' + c.charCodeAt(0).toString(16)).slice(-4); });
  }

  function firstOf(name) { return (/^(?:[\uD800-\uDBFF][\uDC00-\uDFFF]|[^])/.exec(name) || [''])[0].toUpperCase(); }
  function meta(name) { return document.querySelector('meta[name="' + name + '"]').content; }
  function byId(id) { return document.getElementById(id); }

  function copy() {
    var button = byId('copy');
    var code = byId('curl');
    function done(word) {
      button.textContent = words(word);
      setTimeout(function () { button.textContent = words('copy'); }, 2000);
    }
    // Without a secure context there is no clipboard. Then select the line, so that the person can copy it by keyboard.
    function select() {
      window.getSelection().selectAllChildren(code);
      done('selected');
    }
    if (!navigator.clipboard) { return select(); }
    navigator.clipboard.writeText(code.textContent).then(function () { done('copied'); }, select);
  }

  // --- start -----------------------------------------------------------

  byId('qr').alt = words('qr');
  byId('qr').onload = function () {
    // Give each module a whole number of pixels, so that all have one size. The server draws eight pixels for each.
    var modules = this.naturalWidth / 8;
    this.width = this.height = Math.max(1, Math.round(220 / modules)) * modules;
  };
  byId('aside').hidden = false;
  byId('panel').open = matchMedia('(min-width: 60rem)').matches;    // not on a phone, where the login comes first
  byId('copy').onclick = copy;
  Array.prototype.forEach.call(document.querySelectorAll('[name="way"]'), function (choice) {
    choice.onchange = function () { if (watch) { watch.use(way()); } };
  });
  // Also offered after a scan, because the phone may have lost its connection.
  byId('again').onclick = byId('other').onclick = function () {
    stop();
    show('starting');
    byId('title').focus();    // the button is hidden now, and the focus must be somewhere
    start('waiting');
  };
  show('starting');
  start('waiting');
}());
