/*
 * Sends a POST without a body, for both pages of the demo. `done` gets the object in the answer, or null if none came,
 * and the XMLHttpRequest.
 */
function post(url, done) {
  'use strict';
  var request = new XMLHttpRequest();
  request.open('POST', url);
  request.timeout = 10000;    // otherwise a phone that has lost its network may wait for minutes
  request.onloadend = function () {
    var answer = null;
    try { answer = JSON.parse(request.responseText); } catch (noAnswer) { /* stays null */ }
    done(answer, request);
  };
  request.send();
}
