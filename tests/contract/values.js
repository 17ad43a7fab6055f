// Evaluates scripts as a page does, and compares each result to JSON.parse of the same text. Reads
// [{"name", "text", "scripts": [...]}, ...] from stdin, and writes the differences, [fault, ...], to stdout. A script
// must call cb once or assign window.qr.
"use strict";
const vm = require("vm");

const page = vm.createContext({});
vm.runInContext("var window = this, calls = [], cb = function () { calls.push(Array.from(arguments)); };", page);
const parse = vm.runInContext("(text) => JSON.parse(text)", page);
const prototypes = vm.runInContext("[Object, Array, String, Number, Boolean, Function].map((c) => c.prototype)", page);

const describe = (object) => Reflect.ownKeys(object).map((name) => [name, Object.getOwnPropertyDescriptor(object, name)]);
const untouched = prototypes.map(describe);

function assertSame(one, other, path) {
  if (Object.is(one, other)) return;
  const objects = [one, other].every((value) => typeof value === "object" && value !== null);
  if (!objects) throw Error(`${path}: ${String(one)} is not ${String(other)}`);
  if (Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)) throw Error(`${path}: another prototype`);
  if (Array.isArray(one) !== Array.isArray(other)) throw Error(`${path}: an array and an object`);
  const [members, others] = [describe(one), describe(other)];
  const names = (list) => JSON.stringify(list.map(([name]) => name));
  if (names(members) !== names(others)) throw Error(`${path}: ${names(members)} are not ${names(others)}`);
  members.forEach(([name, member], at) => {
    for (const trait of ["writable", "enumerable", "configurable"]) {
      if (member[trait] !== others[at][1][trait]) throw Error(`${path}.${name}: not as ${trait}`);
    }
    assertSame(member.value, others[at][1].value, `${path}.${name}`);
  });
}

function assertUntouched() {
  prototypes.forEach((prototype, at) => {
    const now = describe(prototype);
    const same = now.length === untouched[at].length && now.every(([name, member], i) => {
      const [before, was] = untouched[at][i];
      return name === before && ["value", "get", "set"].every((part) => member[part] === was[part]);
    });
    if (!same) throw Error("a prototype was changed");
  });
}

function check(script, text) {
  page.calls.length = 0;
  page.qr = page;
  vm.runInContext(script, page);
  const [called, assigned] = [page.calls, page.qr];
  if (assigned === page && (called.length !== 1 || called[0].length !== 1)) throw Error("not one call with one argument");
  if (assigned !== page && called.length !== 0) throw Error("assigned and called");
  assertSame(assigned === page ? called[0][0] : assigned, parse(text), "answer");
  assertUntouched();
}

const faults = [];
for (const { name, text, scripts } of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
  for (const script of scripts) {
    for (const mode of ["", '"use strict";']) {
      try {
        check(mode + script, text);
      } catch (error) {
        faults.push(`${name}: ${error}: ${mode}${script.slice(0, 300)}`);
      }
    }
  }
}
console.log(JSON.stringify(faults));
