/*
 * The demo's list "On the wire": each poll of the page, as it is sent, held and answered. It watches the script tags
 * that holdfast.js inserts. The library has no code for it.
 */
(function () {
  'use strict';

  var KEPT = 50;       // polls shown at most: a page that is left open for days must not grow
  var SHOWN = 2000;    // characters of a text that are shown at most; a value may be 64 KiB long

  var list = document.getElementById('wire');

  function line(item, name, text) {
    var made = document.createElement('p');
    made.className = name;
    made.textContent = words.cut(text, SHOWN);
    return item.appendChild(made);
  }

  function param(url, name) {
    var found = new RegExp('[?&]' + name + '=([^&]*)').exec(url);
    return found ? found[1] : '';
  }

  function whyAsked(url) {
    if (param(url, 'wait') === '0') { return 'why-brief'; }
    return param(url, 'last') === '0' ? 'why-first' : 'why-next';
  }

  function whyAnswered(answer) {
    var name = 'why' + answer.code + (answer.final ? '-final' : '');
    return words.has(name) ? name : 'why-3';    // an unknown negative code of a later server: the page asks again, too
  }

  // Runs before the script can arrive: observers run as soon as the library's code has returned.
  function show(script) {
    var url = script.getAttribute('src');
    var name = param(url, 'callback');
    var original = window[name];
    var began = Date.now();
    var item = document.createElement('li');
    var answer = null;
    var held;

    line(item, 'asked', 'GET ' + url);
    line(item, 'why', words(whyAsked(url)));
    held = line(item, 'held', words('held'));
    list.insertBefore(item, list.firstChild);
    if (list.children.length > KEPT) { list.removeChild(list.lastChild); }

    function ended(text, why) {
      held.className = 'ended';
      held.textContent = words('later', words.seconds(Date.now() - began));
      line(item, 'answered', text);
      if (why) { line(item, 'why', words(why)); }
    }

    if (original) {
      window[name] = function (given) {
        answer = answer || given;
        original(given);
      };
    }
    script.addEventListener('load', function () {
      if (!answer) { return ended(words('silent')); }
      ended('/**/typeof ' + name + '==="function"&&' + name + '(' + JSON.stringify(answer) + ');', whyAnswered(answer));
    });
    script.addEventListener('error', function () { ended(words('cut'), 'why-cut'); });
  }

  new MutationObserver(function (changes) {
    changes.forEach(function (change) {
      Array.prototype.forEach.call(change.addedNodes, function (node) {
        if (node.nodeName === 'SCRIPT' && /\/status\/get\?/.test(node.getAttribute('src'))) { show(node); }
      });
    });
  }).observe(document.head, { childList: true });
}());
