/*
 * The demo's screen: a login by QR code. What a page of your own needs of it is the call of `holdfast.watch` in `start`:
 * a key, and what to do when a status comes.
 *
 * Everything that comes from outside is shown as text (textContent), never as HTML.
 */
(function () {
  'use strict';

  var SHOWN = 80;       // characters of a name that are shown; from a terminal it may be of any length
  var PAUSE = 1000;     // ms between two tries to get a code
  var LATE = 3;         // seconds that are waited for what was pressed in the last moment

  var id;               // which login: it stands in the code, and whoever sees that may press the phone's buttons
  var key;              // what is polled with: it stays here, so that nobody else hears the status
  var watch;            // the wait for its status
  var expires;          // when the code ends, by this browser's clock
  var calm = 'waiting'; // the state that is shown again when a trouble is over
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
      watch = holdfast.watch('', key, { onstatus: heard, ongone: renew, onerror: failed, onstate: changed });
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

  // The code has expired, or somebody has deleted its key.
  function renew() {
    stop();
    show('expired');
    starting = setTimeout(start, PAUSE, 'expired');
  }

  function tick() {
    var left = Math.max(0, Math.ceil((expires - Date.now()) / 1000));
    byId('left').textContent = Math.floor(left / 60) + ':' + ('0' + left % 60).slice(-2);
    // What was pressed in time may still be on its way, or have come while this machine slept. Where the server is lost,
    // that is found out first.
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
    if (place.textContent !== text) { place.textContent = text; }    // a screen reader speaks each change, so only changes
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

  // The line is pasted into a shell: nothing in it may end the quotes, and nothing that a terminal acts upon or does not
  // show may be in it.
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
    // Without a secure context there is no clipboard: then the line is selected, and the keyboard copies it.
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
    // A whole number of pixels for each module, of which the server draws eight: all are of one size.
    var modules = this.naturalWidth / 8;
    this.width = this.height = Math.max(1, Math.round(220 / modules)) * modules;
  };
  byId('aside').hidden = false;
  byId('panel').open = matchMedia('(min-width: 60rem)').matches;    // on a phone the login comes first
  byId('copy').onclick = copy;
  // Also while it is scanned, for who scanned it with a phone that then lost its way.
  byId('again').onclick = byId('other').onclick = function () {
    stop();
    show('starting');
    byId('title').focus();    // the button goes, and the keyboard must be somewhere
    start('waiting');
  };
  show('starting');
  start('waiting');
}());
