/*
 * The demo's phone: it plays the app that has scanned the code. Each button sends a POST. The demo then sets a status
 * with `after`, the version that this phone saw last, so that a second phone changes nothing.
 */
(function () {
  'use strict';

  var id = (/[?&]id=([^&]*)/.exec(location.search) || [])[1];    // not decoded: it becomes part of the next address
  var kept = 'holdfast-demo ' + id;
  // The data that a reload must keep: `after`, `expires`, `done`, and `unsure`. The last one means that a try has no
  // answer yet, so it may have been carried out.
  var memory = recall();
  var pressed;               // the button to try again

  // --- buttons ---------------------------------------------------------

  function press(button) {
    pressed = button;
    show(button === 'scan' ? 'scanning' : 'sending');
    var wasUnsure = memory.unsure;
    memory.unsure = true;
    keep();
    post('/demo/phone?id=' + id + '&do=' + button + '&after=' + (memory.after || 0) +
      (button === 'confirm' ? '&name=' + encodeURIComponent(byId('name').value.trim()) : ''), function (answer, request) {
      memory.unsure = !answer || answer.stored === 'unknown' || wasUnsure && answer.code !== 0;
      keep();
      answered(answer, request);
    });
  }

  function answered(answer, request) {
    switch (answer ? answer.code : NaN) {
    case 0:
      succeeded(answer, request);
      break;
    case -4:
      show('gone');
      break;
    case -5:
      show('mistake', answer.message);
      break;
    case -7:
      show(memory.unsure ? 'conflictMaybe' : 'conflict');
      break;
    default:    // no connection, or the server cannot store it now
      show('lost');
    }
  }

  function succeeded(answer, request) {
    if (pressed === 'scan') {
      // Use the server's clock for the time left: the phone's clock may be wrong by minutes.
      var now = Date.parse(request.getResponseHeader('date')) || Date.now();
      memory = { after: answer.version, expires: Date.now() + (+id.split('-')[1] - now) };
      keep();
      ask();
    } else {
      memory.done = pressed === 'confirm' ? 'done' : 'doneRefused';
      keep();
      show(memory.done);
      if (pressed === 'confirm' && answer.delivered === 0) {
        byId('note').textContent = words('notWaiting');
        byId('note').hidden = false;
      }
    }
  }

  function ask() {
    show('asking');
    setTimeout(function () {
      if (byId('phone').getAttribute('data-state') === 'asking') { show('gone'); }
    }, Math.max(0, memory.expires - Date.now()));
  }

  // --- data that a reload must keep ------------------------------------

  // A browser may refuse to store anything. Then a reload scans again, and is refused because the code is used.
  function recall() {
    try { return JSON.parse(sessionStorage.getItem(kept)) || {}; } catch (refused) { return {}; }
  }

  function keep() {
    try { sessionStorage.setItem(kept, JSON.stringify(memory)); } catch (refused) { /* go on without */ }
  }

  // --- showing ---------------------------------------------------------

  function show(state, given) {
    var busy = state === 'sending';
    byId('phone').setAttribute('data-state', state);
    byId('state').textContent = words(state, given);
    byId('form').hidden = !busy && state !== 'asking';
    byId('confirm').disabled = byId('refuse').disabled = busy;
    byId('retry').hidden = state !== 'lost';
    byId('note').hidden = true;
    var isOver = !busy && !/^(scanning|asking|lost)$/.test(state);
    byId('phone').className = isOver ? 'over' : '';
    byId('close').hidden = !isOver;
    // If the buttons are hidden, the focus must be somewhere.
    if (state === 'lost') { byId('retry').focus(); } else if (isOver) { byId('state').focus(); }
  }

  function byId(id) { return document.getElementById(id); }

  // --- start -----------------------------------------------------------

  byId('where').textContent = location.host;
  byId('name').value = words('ann');
  byId('form').onsubmit = function (event) {
    event.preventDefault();
    press('confirm');
  };
  byId('refuse').onclick = function () { press('refuse'); };
  byId('retry').onclick = function () { press(pressed); };
  if (!id) {
    show('noCode');
  } else if (memory.done) {
    show(memory.done);
  } else if (memory.after) {
    ask();
  } else {
    press('scan');
  }
}());
