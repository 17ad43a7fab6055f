/*
 * One POST without a body, for both pages of the demo. `done` hears the answer's object and the HTTP answer; nothing where
 * none came.
 */
function post(url, done) {
  'use strict';
  var request = new XMLHttpRequest();
  request.open('POST', url);
  request.timeout = 10000;    // a phone that has lost its network may else wait for minutes
  request.onloadend = function () {
    var answer = null;
    try { answer = JSON.parse(request.responseText); } catch (noAnswer) { /* as it is */ }
    done(answer, request);
  };
  request.send();
}
