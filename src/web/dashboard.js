
/*
 * The page for operators. It shows the reports of `GET /nodes` as numbers and lines, asks for new ones every 2 s, and
 * searches for one key by `GET /keys/{key}`.
 *
 * Keys, values, addresses and errors come from outside. They are shown as text (textContent), never as HTML.
 */
(() => {
  'use strict';

  const EVERY = 2000;             // ms between two requests; nodes take a sample as often
  const SPAN = 5 * 60 * 1000;     // ms that the charts show; nodes keep their samples as long
  const PATIENCE = 10000;         // ms until a request fails; nodes wait less for their peers
  const SHOWN = 4000;             // characters of a value that are shown at most
  const GONE = 10 * 60 * 1000;    // ms for which a node that left the list without a drain is shown
  const COLOURS = 8;
  const TOKEN = 'holdfast-token';

  const byId = (id) => document.getElementById(id);
  const nodes = new Map();        // by node id: {report, samples: Map by time, colour, skew, silent, gone}
  let own;                        // the id of the node that answers this page
  let seen = 0;                   // when it answered last, by this browser's clock
  let timer;
  let turn = 0;                   // the number of the newest request; answers to older ones are ignored

  // --- texts --------------------------------------------------------------

  /** Returns an element with these classes and children. A child that is not an element becomes text. */
  function el(name, classes, ...children) {
    const element = document.createElement(name);
    if (classes) { element.className = classes; }
    element.append(...children.map((child) => child instanceof Node ? child : String(child)));
    return element;
  }

  const number = (value, digits = 0) => typeof value === 'number' && isFinite(value)
    ? value.toLocaleString('en', { maximumFractionDigits: digits }) : '–';
  const rate = (value) => number(value, value < 10 ? 1 : 0);
  const time = (at) => new Date(at).toLocaleTimeString('en-GB');
  const host = (address) => String(address).replace(/^http:\/\//, '');
  const shortId = (id) => String(id).slice(0, 8);

  function latency(ms) {
    if (typeof ms !== 'number') { return '–'; }
    if (ms >= 1000) { return `${number(ms / 1000, 1)} s`; }
    return ms >= 1 ? `${number(ms, ms < 10 ? 1 : 0)} ms` : `${number(ms * 1000)} µs`;
  }

  function duration(ms) {
    const s = Math.floor(ms / 1000);
    const parts = [[Math.floor(s / 86400), 'd'], [Math.floor(s / 3600) % 24, 'h'], [Math.floor(s / 60) % 60, 'min'], [s % 60, 's']];
    const first = parts.findIndex(([count]) => count > 0);
    return first < 0 ? '0 s' : parts.slice(first, first + 2).filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(' ');
  }

  // --- asking -------------------------------------------------------------

  const storage = {
    // A browser may refuse to store the token. Then the page keeps it until it is closed.
    get: () => { try { return sessionStorage.getItem(TOKEN) || storage.kept; } catch { return storage.kept; } },
    set: (token) => { storage.kept = token; try { sessionStorage.setItem(TOKEN, token); } catch { /* see above */ } },
    clear: () => { storage.kept = ''; try { sessionStorage.removeItem(TOKEN); } catch { /* see above */ } },
    kept: '',
  };

  /** Sends a request to this node. Returns the HTTP status and the text of the answer. */
  async function ask(path) {
    const token = storage.get();
    // A header cannot contain such a text, so it is no token of the node: return 401 without asking.
    if (/[^\x21-\x7e]/.test(token)) { return { status: 401, text: '' }; }
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { headers, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(PATIENCE) });
    return { status: answer.status, text: await answer.text() };
  }

  function askToken() {
    const was = storage.get();
    storage.clear();
    clearTimeout(timer);
    turn += 1;                  // ignores the answer to a request that is under way
    // Leave no data in the page for the next person at this browser.
    nodes.clear();
    take.strangers = [];
    seen = 0;
    for (const id of ['nodes', 'errors', 'found']) { byId(id).replaceChildren(); }
    for (const chart of charts) { chart.draw(); }
    byId('inside').hidden = byId('forget').hidden = true;
    byId('ask').hidden = false;
    byId('summary').textContent = '';
    byId('wrong').textContent = was ? 'That is none of this node’s tokens.' : '';
    byId('token').value = '';
    byId('token').focus();
  }

  /** Gets the reports and shows them, and sets a timer for the next time. */
  async function look() {
    clearTimeout(timer);
    const [mine, began] = [turn += 1, Date.now()];
    // At first ask for all samples, then only for those since the last answer.
    const missing = Math.min(150, Math.ceil((began - seen) / EVERY) + 2);
    try {
      const { status, text } = await ask(`/nodes?samples=${missing}`);
      if (mine !== turn) { return; }
      if (status === 401) { return askToken(); }
      if (status !== 200) { throw new Error(`the node answers ${status}`); }
      take(JSON.parse(text));
      seen = Date.now();
      byId('ask').hidden = true;
      byId('inside').hidden = false;
      byId('forget').hidden = !storage.get();
      show();
    } catch (error) {
      if (mine !== turn) { return; }
      say('bad', seen ? `This node has not answered since ${time(seen)}; trying again` : 'This node does not answer; trying again');
    }
    timer = setTimeout(look, Math.max(0, EVERY - (Date.now() - began)));
  }

  function take({ nodes: reports, unreachable = [], drained = [] }) {
    own = reports[0].node;
    const silent = new Set(unreachable);
    for (const [id, node] of nodes) {
      const was = node.silent;
      node.silent = silent.has(node.report.address);
      if (node.silent || reports.some((report) => report.node === id)) { node.gone = 0; continue; }
      // A node that hangs or was killed is silent before it leaves the list. One that drains may be silent too, because
      // it may end before the others read the list again.
      if (was && !drained.includes(id)) { node.gone = Date.now(); }
      const isReplaced = reports.some((report) => report.address === node.report.address);
      if (!node.gone || isReplaced || Date.now() - node.gone > GONE) { nodes.delete(id); }
    }
    for (const report of reports) {
      const used = new Set([...nodes.values()].map((node) => node.colour));
      const free = [...Array(COLOURS).keys()].find((colour) => !used.has(colour)) ?? nodes.size % COLOURS;
      const node = nodes.get(report.node) ?? { colour: free, samples: new Map() };
      nodes.set(report.node, node);
      // Each node has its own clock, so samples are placed by their age on that clock.
      const skew = Date.now() - report.now;
      Object.assign(node, { report, silent: false });
      for (const sample of report.samples) {
        if (!node.samples.has(sample.at)) { node.samples.set(sample.at, { ...sample, when: sample.at + skew }); }
      }
      for (const [at, sample] of node.samples) {
        if (sample.when < Date.now() - SPAN - EVERY) { node.samples.delete(at); }
      }
    }
    // Of nodes that have never answered, only the address is known.
    take.strangers = unreachable.filter((address) => ![...nodes.values()].some((node) => node.report.address === address));
  }
  take.strangers = [];

  const answers = (node) => !node.silent && !node.gone;
  const list = () => [...nodes.values()].sort((a, b) => a.report.address < b.report.address ? -1 : 1);

  // --- what is shown --------------------------------------------------------

  function say(classes, text) {
    const summary = byId('summary');
    // Set only a new text, because screen readers read it aloud each time.
    if (summary.textContent !== text) { summary.textContent = text; }
    summary.className = classes;
  }

  function show() {
    const all = list();
    const gone = all.filter((node) => node.gone).length;
    const silent = all.filter((node) => node.silent).length + take.strangers.length;
    const unwell = all.filter((node) => answers(node) && !(node.report.ready && node.report.path)).length;
    const count = all.length - gone + take.strangers.length;
    const said = [`${count} ${count === 1 ? 'node' : 'nodes'}`];
    if (silent) { said.push(`${silent} without an answer`); }
    if (unwell) { said.push(`${unwell} unwell`); }
    if (gone) { said.push(`${gone} gone without a drain`); }
    const isWell = !silent && !unwell && !gone;
    if (isWell) { said.push('all well'); }
    say(isWell ? 'good' : 'bad', said.join(' · '));
    showNodes(all);
    showErrors(all);
    for (const chart of charts) { chart.draw(); }
  }

  const last = (node) => [...node.samples.values()].at(-1) ?? {};
  const mark = (is, yes, no) => el('span', is ? 'good' : 'bad', is ? yes : no);

  /** Returns what fails, in words. */
  function why({ parts }) {
    if (!parts) { return []; }
    const addresses = [parts.unreachable ?? []].flat().map(host);
    const failed = Object.entries(parts).filter(([name, how]) => !/^(peers|unreachable)$/.test(name) && how !== 'ok');
    const said = failed.map(([name, how]) => `${name}: ${how}`);
    if (addresses.length) { said.push(`does not reach ${addresses.join(', ')}`); }
    return [el('span', 'why bad', said.join('; '))];
  }

  function store({ kind, connected }) {
    if (kind === 'memory') { return ['in this process']; }
    return [mark(connected, 'Redis', 'no Redis')];
  }

  // A node of an earlier version has no streams and sockets.
  function wires({ streams, sockets }) {
    const open = [['stream', streams], ['socket', sockets]].filter(([, count]) => count);
    const words = open.map(([word, count]) => `${number(count)} ${word}${count === 1 ? '' : 's'}`);
    return words.length ? [el('span', 'note', words.join(' · '))] : [];
  }

  const columns = [
    ['Node', '', (node) => [
      el('span', `dot n${node.colour}`), el('span', 'mono', host(node.report.address)),
      ...(node.report.node === own ? [el('span', 'tag', 'this node')] : []),
      el('span', 'note', `${shortId(node.report.node)} · ${node.report.version} · up ${duration(node.report.uptime_ms)}`),
    ]],
    ['Ready', '', ({ report }) => [mark(report.ready, 'ready', 'not ready')]],
    ['Path', '', ({ report }) => [mark(report.path, 'whole', 'broken'), ...why(report)]],
    ['Store', '', ({ report }) => store(report.store)],
    ['Waiters', 'number', ({ report }) => [number(report.waiters), ...wires(report)]],
    ['Keys', 'number', ({ report }) => [number(report.keys)]],
    ['Connections', 'number', ({ report }) => [number(report.connections.public + report.connections.internal)]],
    ['Gets/s', 'number', (node) => [rate(last(node).gets_per_s)]],
    ['Sets/s', 'number', (node) => [rate(last(node).sets_per_s)]],
    ['Wake p50', 'number', ({ report }) => [latency(report.wake_p50_ms)]],
    ['p99', 'number', ({ report }) => [latency(report.wake_p99_ms)]],
  ];

  function cell(classes, column, children) {
    const td = el('td', classes, ...children);
    td.setAttribute('role', 'cell');
    td.dataset.column = column;
    return td;
  }

  function row(cells) {
    const tr = el('tr', '', ...cells);
    tr.setAttribute('role', 'row');
    return tr;
  }

  function silentRow(first, gone) {
    const state = gone ? `gone since ${time(gone)}, without a drain` : 'does not answer';
    const rest = cell('', 'State', [el('span', 'why bad', state)]);
    rest.colSpan = columns.length - 1;
    return row([cell('', 'Node', first), rest]);
  }

  function showNodes(all) {
    const rows = all.map((node) => !answers(node)
      ? silentRow(columns[0][2](node), node.gone)
      : row(columns.map(([name, classes, children]) => cell(classes, name, children(node)))));
    rows.push(...take.strangers.map((address) => silentRow([el('span', 'mono', host(address))])));
    byId('nodes').replaceChildren(...rows);
  }

  function showErrors(all) {
    const lines = all.flatMap((node) => node.report.errors.map((line) => ({ ...line, node, when: line.at + seen - node.report.now })));
    lines.sort((a, b) => b.when - a.when);
    const item = ({ when, level, text, times, node }) => {
      const day = new Date(when).toDateString() === new Date().toDateString() ? '' : `${new Date(when).toLocaleDateString('en-GB')} `;
      const from = el('span', 'from', host(node.report.address), times > 1 ? ` · ${number(times)} times, the last time then` : '');
      return el('li', '', el('span', 'number', day + time(when)), el('span', `level ${level === 'error' ? 'bad' : 'warn'}`, level),
        el('span', 'text', el('span', '', text), ' ', from));
    };
    byId('errors').replaceChildren(...lines.length ? lines.slice(0, 50).map(item) : [el('li', '', el('span', 'none', 'None.'))]);
  }

  // --- charts -----------------------------------------------------------------

  const SVG = 'http://www.w3.org/2000/svg';
  const EDGE = { left: 42, right: 8, top: 8, bottom: 18 };

  function svg(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [attribute, value] of Object.entries(attributes)) { element.setAttribute(attribute, value); }
    element.append(...children);
    return element;
  }

  /** Returns a step of 1, 2 or 5 times a power of ten; at most three of them reach `most`. */
  function step(most) {
    const least = most / 3;
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= least * 0.999);
  }

  /** A chart with a line for each node. The pointer or the arrow keys choose a moment, and its values are shown. */
  class Chart {
    constructor({ title, unit, fields, format, total, least }) {
      Object.assign(this, { title, fields, format, total, least });
      this.now = el('span', 'now number');
      this.plot = el('div', 'plot');
      this.tip = el('div', 'tip');
      this.tip.hidden = true;
      this.back = null;         // how many samples ago the cursor is
      const caption = el('figcaption', '', el('h2', '', title, ' ', el('span', 'unit', unit)), this.now);
      this.element = el('figure', '', caption, this.plot, this.tip);
      this.plot.tabIndex = 0;
      for (const [name, value] of Object.entries({ role: 'slider', 'aria-label': `${title}, moment`, 'aria-valuemin': -SPAN / 1000, 'aria-valuemax': 0 })) {
        this.plot.setAttribute(name, value);
      }
      this.plot.addEventListener('pointermove', (event) => this.point(event));
      this.plot.addEventListener('pointerdown', (event) => this.point(event));
      this.plot.addEventListener('pointerleave', () => this.move(null));
      this.plot.addEventListener('blur', () => this.move(null));
      this.plot.addEventListener('keydown', (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    /** Returns the value of the sample of `node` closest to `when`, or null if there is none close enough. */
    at(node, field, when) {
      let best;
      for (const sample of node.samples.values()) {
        if (Math.abs(sample.when - when) < Math.abs((best?.when ?? -Infinity) - when)) { best = sample; }
      }
      return best && Math.abs(best.when - when) <= EVERY ? best[field] : null;
    }

    draw() {
      const { width, height } = this.plot.getBoundingClientRect().width ? this.plot.getBoundingClientRect() : { width: 300, height: 144 };
      const [left, right, top, bottom] = [EDGE.left, width - EDGE.right, EDGE.top, (height || 144) - EDGE.bottom];
      const end = seen;
      const x = (when) => right - (end - when) / SPAN * (right - left);
      const all = list();
      const values = all.flatMap((node) => [...node.samples.values()].flatMap((sample) => this.fields.map((field) => sample[field] ?? 0)));
      const every = step(Math.max(this.least, ...values));
      const most = every * Math.max(1, Math.ceil(Math.max(this.least, ...values) / every * 0.999));
      const y = (value) => bottom - value / most * (bottom - top);

      const drawing = svg('svg', { 'aria-hidden': 'true', focusable: 'false' });
      for (let value = 0; value <= most * 1.001; value += every) {
        drawing.append(svg('line', { class: 'grid', x1: left, x2: right, y1: y(value), y2: y(value) }),
          svg('text', { x: left - 6, y: y(value) + 3.5, 'text-anchor': 'end' }, this.format(value, true)));
      }
      for (const [minutes, text] of [[5, '−5 min'], [3, '−3'], [2, '−2'], [1, '−1'], [0, 'now']]) {
        const anchor = minutes === 5 ? 'start' : minutes === 0 ? 'end' : 'middle';
        drawing.append(svg('text', { x: x(end - minutes * 60000), y: bottom + 14, 'text-anchor': anchor }, text));
      }
      for (const node of all) {
        for (const [index, field] of this.fields.entries()) {
          const thin = index ? ' thin' : '';
          const [line, points] = this.paths(node, field, x, y, left);
          drawing.append(svg('path', { class: `line n${node.colour}${thin}`, d: line }));
          if (points) { drawing.append(svg('path', { class: `points n${node.colour}${thin}`, d: points })); }
        }
      }
      if (this.back !== null) {
        const at = x(end - this.back * EVERY);
        drawing.append(svg('line', { class: 'cursor', x1: at, x2: at, y1: top, y2: bottom }));
      }
      this.plot.replaceChildren(drawing);
      this.now.textContent = this.format(this.total(all));
      this.showTip(all, end - (this.back ?? 0) * EVERY, x);
    }

    /** Returns the line of one node, and the points between two gaps, where no line can be seen. */
    paths(node, field, x, y, left) {
      let line = '', points = '';
      let before, alone = '';
      for (const sample of node.samples.values()) {
        const value = sample[field];
        if (typeof value !== 'number' || x(sample.when) < left) { before = undefined; continue; }
        // No line across a gap: no value is known there.
        const joins = before !== undefined && sample.when - before < 3 * EVERY;
        const at = `${x(sample.when).toFixed(1)} ${y(value).toFixed(1)}`;
        line += `${joins ? 'L' : 'M'}${at}`;
        points += joins ? '' : alone;
        alone = joins ? '' : `M${at}h0`;
        before = sample.when;
      }
      return [line, points + alone];
    }

    showTip(all, when, x) {
      const said = all.map((node) => [node, this.fields.map((field) => this.format(this.at(node, field, when))).join(' / ')]);
      this.plot.setAttribute('aria-valuenow', -(this.back ?? 0) * EVERY / 1000);
      this.plot.setAttribute('aria-valuetext', `${time(when)}: ${said.map(([node, value]) => `${host(node.report.address)} ${value}`).join(', ')}`);
      this.tip.hidden = this.back === null;
      if (this.tip.hidden) { return; }
      const lines = said.map(([node, value]) => el('p', '', el('span', '', el('span', `dot n${node.colour}`), host(node.report.address)), el('span', 'number', value)));
      this.tip.replaceChildren(el('p', 'note', time(when)), ...lines);
      const [at, width] = [this.plot.offsetLeft + x(when), this.tip.offsetWidth];
      this.tip.style.left = `${Math.max(4, Math.min(at + 10, this.element.clientWidth - width - 4))}px`;
      // Keep the tip beside the cursor, not on it.
      if (at + 10 + width > this.element.clientWidth) { this.tip.style.left = `${Math.max(4, at - width - 10)}px`; }
    }

    move(back) {
      this.back = back === null ? null : Math.max(0, Math.min(SPAN / EVERY, back));
      this.draw();
    }

    point(event) {
      const { left, width } = this.plot.getBoundingClientRect();
      const part = (left + width - EDGE.right - event.clientX) / (width - EDGE.left - EDGE.right);
      this.move(Math.round(part * SPAN / EVERY));
    }

    key(event) {
      const to = { ArrowLeft: (this.back ?? 0) + 1, ArrowRight: (this.back ?? 1) - 1, PageUp: (this.back ?? 0) + 30,
        PageDown: (this.back ?? 30) - 30, Home: SPAN / EVERY, End: 0, Escape: null }[event.key];
      if (to === undefined) { return; }
      event.preventDefault();
      this.move(to);
    }
  }

  const sum = (value) => (all) => all.filter(answers).reduce((total, node) => total + (value(node) ?? 0), 0);
  const worst = (value) => (all) => all.reduce((most, node) => Math.max(most ?? 0, value(node) ?? 0) || null, null);
  const charts = [
    { title: 'Waiters', unit: '', fields: ['waiters'], format: (value) => number(value), total: sum((node) => node.report.waiters), least: 3 },
    { title: 'Gets', unit: 'a second', fields: ['gets_per_s'], format: rate, total: sum((node) => last(node).gets_per_s), least: 1 },
    { title: 'Sets', unit: 'a second', fields: ['sets_per_s'], format: rate, total: sum((node) => last(node).sets_per_s), least: 1 },
    { title: 'Wake', unit: 'p99, dotted p50', fields: ['wake_p99_ms', 'wake_p50_ms'], format: (value, axis) => axis && value === 0 ? '0' : latency(value), total: worst((node) => node.report.wake_p99_ms), least: 1 },
  ].map((chart) => new Chart(chart));

  // --- the search ---------------------------------------------------------------

  /** Returns the value as its own bytes, so that long numbers keep all digits. */
  function valueOf(text, found) {
    const start = text.indexOf(`,"version":${found.version},"value":`, JSON.stringify(found.key).length);
    const end = text.lastIndexOf(',"final":');
    const raw = text.slice(start + `,"version":${found.version},"value":`.length, end);
    try {
      JSON.parse(raw);
      return raw;
    } catch {
      return JSON.stringify(found.value);
    }
  }

  function details(text) {
    const found = JSON.parse(text);
    const said = [];
    const say = (name, ...what) => said.push(el('dt', '', name), el('dd', '', ...what));
    const version = found.version > 1e12 ? `${found.version} (${new Date(found.version).toLocaleString('en-GB')})` : found.version;
    if (found.gone) {
      say('Status', `deleted, version ${version}`);
    } else if (found.version > 0) {
      const value = valueOf(text, found);
      const shown = el('pre', '', value.slice(0, SHOWN));
      // It may be longer than its box. With a tab stop, keys can scroll it too.
      shown.tabIndex = 0;
      shown.setAttribute('role', 'group');
      shown.setAttribute('aria-label', 'Value');
      const more = value.length > SHOWN ? [el('p', 'note', `and ${number(value.length - SHOWN)} characters more`)] : [];
      say('Value', shown, ...more);
      say('Version', version);
      say('Final', found.final ? 'yes: pages stop asking' : 'no');
    } else {
      say('Status', 'none yet');
    }
    if (found.version > 0) { say('Ends in', duration(found.expires_in_ms)); }
    const held = Object.entries(found.waiters);
    const count = held.reduce((total, [, waiters]) => total + waiters, 0);
    say('Waiters', held.length ? `${number(count)} in all` : 'nobody', ...held.map(([name, waiters]) => {
      const [id, address] = [name.slice(0, name.indexOf('@')), name.slice(name.indexOf('@') + 1)];
      const node = nodes.get(id);
      const dot = node ? [el('span', `dot n${node.colour}`)] : [];
      return el('div', 'held', ...dot, el('span', 'mono', host(address)), ' ', el('span', 'note', shortId(id)), `: ${number(waiters)}`);
    }));
    for (const address of found.unreachable ?? []) { say('No answer', el('span', 'bad', host(address)), ' may hold more'); }
    return el('dl', '', ...said);
  }

  let searches = 0;
  async function search(key) {
    const at = ++searches;
    let shown;
    try {
      // A path cannot have such a segment, and no key has such a name.
      const { status, text } = /^\.\.?$/.test(key) ? { status: 400, text: '' } : await ask(`/keys/${encodeURIComponent(key)}`);
      if (status === 401) { return askToken(); }
      shown = {
        200: () => details(text),
        400: () => el('p', 'warn', 'That is no key: 1 to 128 characters of printable ASCII without spaces, and not . or ..'),
        404: () => el('p', '', 'Nobody waits for it, and nothing is known under it.'),
        503: () => el('p', 'bad', 'The store does not answer: nobody knows.'),
      }[status]?.() ?? el('p', 'bad', `The node answers ${status}.`);
    } catch {
      shown = el('p', 'bad', 'This node does not answer.');
    }
    // Show only the answer to the last search.
    if (at === searches) { byId('found').replaceChildren(shown, el('p', 'note', `As of ${time(Date.now())}.`)); }
  }

  // --- the start ------------------------------------------------------------------

  byId('columns').append(...columns.map(([name, classes]) => {
    const th = el('th', classes === 'number' ? classes : '', name);
    th.scope = 'col';
    th.setAttribute('role', 'columnheader');
    return th;
  }));
  byId('charts').append(...charts.map((chart) => chart.element));
  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    storage.set(byId('token').value.trim());
    look();
  });
  byId('forget').addEventListener('click', () => {
    storage.clear();
    askToken();
  });
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    search(byId('key').value.trim());
  });
  // The timers of a hidden tab are slow, so ask at once when it is shown.
  document.addEventListener('visibilitychange', () => { if (!document.hidden && byId('ask').hidden) { look(); } });
  look();
})();
