/*
 * The demo's list "On the wire": each poll of the page, as it is sent, held and answered, and the bytes of each way to
 * hear. It watches the script tags that holdfast.js inserts, its streams and its sockets. The library has no code for it.
 */
(function () {
  'use strict';

  var KEPT = 50;       // polls, and lines of one, shown at most: a page that is left open for days must not grow
  var SHOWN = 2000;    // characters of a text that are shown at most; a value may be 64 KiB long

  var list = document.getElementById('wire');
  var bytes = { script: 0, events: 0, socket: 0 };

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

  // Adds the bytes of a text, in UTF-8, to those of a way to hear.
  function count(way, text) {
    bytes[way] += unescape(encodeURIComponent(text)).length;
    document.getElementById('bytes-' + way).textContent = bytes[way] + ' B';
  }

  // Adds an item with a request and the reason why it was sent. Returns it.
  function add(way, asked, why) {
    var item = document.createElement('li');
    line(item, 'asked', asked);
    line(item, 'why', words(why));
    item.held = line(item, 'held', words('held'));
    item.began = Date.now();
    list.insertBefore(item, list.firstChild);
    if (list.children.length > KEPT) { list.removeChild(list.lastChild); }
    count(way, asked);
    return item;
  }

  function ended(item) {
    item.held.className = 'ended';
    item.held.textContent = words('later', words.seconds(Date.now() - item.began));
  }

  // Says that the page does not wait for a script any more, which the server still holds.
  function left(item) {
    item.held.className = 'ended';
    item.held.textContent = words('left');
  }

  // Adds what came or went on a stream or a socket.
  function passed(item, way, name, text) {
    line(item, name, text);
    if (item.children.length > KEPT) { item.removeChild(item.children[3]); }    // behind the request, its reason, its end
    count(way, text);
  }

  // Its listener comes before that of the library, which may end the stream.
  function showStream(request) {
    var open = request.open;
    var seen = 0;
    var item;
    request.open = function (method, url) {
      if (/\/status\/events\?/.test(url)) { item = add('events', 'GET ' + url, 'why-events'); }
      open.apply(request, arguments);
    };
    request.addEventListener('readystatechange', function () {
      var text = request.responseText;
      if (item && text.length > seen) { passed(item, 'events', 'answered', text.slice(seen)); }
      seen = text.length;
    });
    request.addEventListener('loadend', function () { if (item) { ended(item); } });
  }

  function showSocket(socket) {
    var item = add('socket', 'GET ' + socket.url, 'why-socket');
    var send = socket.send;
    socket.send = function (text) {
      passed(item, 'socket', 'sent', text);
      send.call(socket, text);
    };
    socket.addEventListener('message', function (event) { passed(item, 'socket', 'answered', event.data); });
    socket.addEventListener('close', function () { ended(item); });
  }

  // Runs before the script can arrive: observers run as soon as the library's code has returned.
  function show(script) {
    var url = script.getAttribute('src');
    var name = param(url, 'callback');
    var original = window[name];
    var item = add('script', 'GET ' + url, whyAsked(url));
    var answer = null;
    var body;

    function answered(text, why) {
      ended(item);
      line(item, 'answered', text);
      if (why) { line(item, 'why', words(why)); }
    }

    if (original) {
      window[name] = function (given) {
        answer = answer || given;
        original(given);
      };
    }
    // The library removes a script also when it has come. If it has not called the page's function, `answered` says why.
    script.removed = function () { if (!answer) { left(item); } };
    script.addEventListener('load', function () {
      if (!answer) { return answered(words('silent')); }
      body = '/**/typeof ' + name + '==="function"&&' + name + '(' + JSON.stringify(answer) + ');';
      answered(body, whyAnswered(answer));
      count('script', body);
    });
    script.addEventListener('error', function () { answered(words('cut'), 'why-cut'); });
  }

  // Lets `show` see all that the page makes by `name`.
  function observe(name, show) {
    var Original = window[name];
    if (!Original) { return; }
    window[name] = function (given) {
      var made = new Original(given);
      show(made);
      return made;
    };
  }

  observe('XMLHttpRequest', showStream);
  observe('WebSocket', showSocket);

  new MutationObserver(function (changes) {
    changes.forEach(function (change) {
      Array.prototype.forEach.call(change.addedNodes, function (node) {
        if (node.nodeName === 'SCRIPT' && /\/status\/get\?/.test(node.getAttribute('src'))) { show(node); }
      });
      Array.prototype.forEach.call(change.removedNodes, function (node) {
        if (node.removed) { node.removed(); }
      });
    });
  }).observe(document.head, { childList: true });
}());
