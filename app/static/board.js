// The board: plays the events of both lanes on one clock and draws them.
//
// Gradio runs this once with `element`, `props` and `watch`. `props.value` is a packed JSON string
// (app/run.py). Messages are queued as they arrive; a player shows each event when the common clock
// reaches its time, never before it has arrived. Figures are those of the events shown.
// Whatever a model wrote is set with textContent only.

const root = element.querySelector('.board');
const find = (selector, from = root) => from.querySelector(selector);
const SVG = 'http://www.w3.org/2000/svg';
const FORCED = 1, STOP = 2;
const COLUMNS = 16, IDLE_CAPACITY = 160, CALM_PAINT_MS = 1000;
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
const STATE_WORDS = {
  waiting: 'waiting', semi_activated: 'semi-active', fully_activated: 'fully active',
  completed: 'completed', cached: 'cached',
};

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// ---- formatting ---------------------------------------------------------------------------

const rate = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
const whole = (value) => String(value);
const FIGURES = {
  tps: rate, tokens: whole, forwards: whole,
  tpf: (value) => value.toFixed(2), seconds: (value) => value.toFixed(value < 10 ? 3 : 1),
};

function visible(text) {
  const trimmed = text.trim();
  return trimmed || (text.includes('\n') ? '⏎' : '␣');
}

// ---- one lane -----------------------------------------------------------------------------

class Lane {
  constructor(section) {
    this.section = section;
    this.grid = find('.grid', section);
    this.answer = find('.answer', section);
    this.state = find('.lane-state', section);
    this.figures = Object.fromEntries(
      [...section.querySelectorAll('[data-figure]')].map((node) => [node.dataset.figure, node]));
    this.begin({ name: find('.lane-name', section).textContent, decoder: section.dataset.decoder,
      block: COLUMNS, capacity: IDLE_CAPACITY });
    this.setState('ready');
  }

  begin(start) {
    Object.assign(this, { start, queue: [], horizon: 0, arrived: false, done: false, end: null });
    Object.assign(this, { cells: [], rows: [], holes: [], fresh: [], points: [], stopAt: Infinity });
    this.shown = { time: 0, tokens: 0, forwards: 0 };
    if (start.model) setText(find('.lane-model', this.section), start.model);
    this.section.dataset.decoder = start.decoder;
    this.grid.replaceChildren();
    this.answer.replaceChildren();
    this.grid.style.setProperty('--columns', Math.min(start.block, COLUMNS));
    for (let from = 0; from < start.capacity; from += start.block) this.addRow(from);
    for (const node of Object.values(this.figures)) setText(node, '–');
    this.setState('waiting');
  }

  get diffusion() { return this.start.decoder !== 'ar'; }

  addRow(from) {
    const row = make('div', 'block-row');
    const until = Math.min(from + this.start.block, this.start.capacity);
    const cells = make('div', 'cells frame');
    row.append(make('span', 'row-number', String(this.rows.length + 1)), make('span', 'row-state'),
      cells);
    for (let position = from; position < until; position++) {
      const cell = make('span', 'cell');
      this.cells.push(cell);
      cells.append(cell);
    }
    this.rows.push({ row, cells, label: row.children[1] });
    this.grid.append(row);
    this.setRow(this.rows.length - 1, 'waiting');
  }

  setRow(index, state) {
    const { cells, label } = this.rows[index];
    if (cells.dataset.state === state) return;
    cells.dataset.state = state;
    setText(label, this.diffusion ? STATE_WORDS[state] : '');
  }

  setState(word) {
    setText(this.state, word);
    this.section.dataset.state = word;
  }

  receive(event) {
    this.queue.push(event);
    this.horizon = event.time;
    this.arrived ||= event.finish !== null;
  }

  // Shows every queued event up to `clock`; true if anything changed.
  advance(clock) {
    let moved = false;
    while (this.queue.length && this.queue[0].time <= clock) {
      this.show(this.queue.shift());
      moved = true;
    }
    return moved;
  }

  show(event) {
    for (const cell of this.fresh) cell.classList.remove('now');
    this.fresh = event.commits.map((commit) => this.commit(...commit));
    for (const [from, until, state] of event.blocks) {
      this.setRow(Math.floor(from / this.start.block), state);
      this.reserve(until);
    }
    this.shown = event;
    if (event.tokens) this.points.push([event.time, event.tokens / event.time]);
    if (event.finish !== null) this.finish(event.finish);
  }

  commit(position, text, confidence, flags) {
    const cell = this.cells[position];
    cell.classList.add('known', 'now');
    cell.classList.toggle('forced', Boolean(flags & FORCED));
    cell.classList.toggle('stop', Boolean(flags & STOP));
    setText(cell, flags & STOP ? '■' : visible(text));
    cell.title = `${text} · position ${position} · confidence ${confidence}`;
    this.write(position, text, flags);
    return cell;
  }

  // Answer text: one span a position, a hole where the token is still masked.
  reserve(until) {
    while (this.holes.length < Math.min(until, this.start.capacity)) {
      const hole = make('span', 'hole');
      this.holes.push(hole);
      this.answer.append(hole);
    }
  }

  write(position, text, flags) {
    this.reserve(position + 1);
    const span = this.holes[position];
    if (flags & STOP) this.stopAt = Math.min(this.stopAt, position);
    span.className = flags & FORCED ? 'word forced' : 'word';
    setText(span, flags & STOP ? '' : text);
    if (position >= this.stopAt) this.trim();
  }

  // Nothing is said behind the first stop token.
  trim() {
    this.holes.slice(this.stopAt).forEach((span) => { span.hidden = true; });
    this.cells.slice(this.stopAt + 1).forEach((cell) => { cell.classList.add('beyond'); });
  }

  finish(reason) {
    this.done = true;
    this.stopAt = Math.min(this.stopAt, this.shown.tokens);
    this.trim();
    this.setState(reason === 'stop' ? 'finished' : 'cut at max new tokens');
  }

  get metrics() {
    const { time, tokens, forwards } = this.shown;
    return { tokens, forwards, seconds: time, tokens_per_second: time ? tokens / time : 0,
      tokens_per_forward: forwards ? tokens / forwards : 0 };
  }

  drawFigures(metrics = this.metrics) {
    const values = { tps: metrics.tokens_per_second, tokens: metrics.tokens,
      forwards: metrics.forwards, tpf: metrics.tokens_per_forward, seconds: metrics.seconds };
    for (const [name, value] of Object.entries(values)) {
      setText(this.figures[name], FIGURES[name](value));
      this.figures[name].dataset.value = value;
    }
  }

  follow() {
    const last = this.fresh[this.fresh.length - 1];
    if (last) {
      const { offsetTop: top, offsetHeight: height } = last.closest('.block-row');
      const bottom = top + height - this.grid.clientHeight;
      if (bottom > this.grid.scrollTop) this.grid.scrollTop = bottom;
    }
    this.answer.scrollTop = this.answer.scrollHeight;
  }

  // The tokenizer's own reading of the whole answer, where single tokens read differently.
  settle(final) {
    for (const cell of this.fresh) cell.classList.remove('now');
    this.drawFigures(final.metrics);
    if (this.answer.innerText !== final.text) setText(this.answer, final.text);
  }
}

// ---- chart --------------------------------------------------------------------------------

const chart = {
  svg: find('.chart'), left: 32, right: 250, top: 18, bottom: 222,

  node(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    this.svg.append(node);
    return node;
  },

  begin() {
    this.svg.replaceChildren();
    this.marks = [0, 1, 2].map((i) => {
      const y = this.bottom - (i * (this.bottom - this.top)) / 2;
      this.node('line', { class: 'rule', x1: this.left, x2: this.right, y1: y, y2: y });
      return this.node('text', { class: 'mark', x: this.left - 6, y: y + 4, 'text-anchor': 'end' });
    });
    this.times = [0, 1, 2].map((i) => this.node('text', {
      class: 'mark', x: this.left + (i * (this.right - this.left)) / 2, y: this.bottom + 18,
      'text-anchor': ['start', 'middle', 'end'][i],
    }));
    this.lines = lanes.map((_, i) => this.node('polyline', { class: `line lane-${i}` }));
    this.heads = lanes.map((_, i) => this.node('circle', { class: `head lane-${i}`, r: 4, cx: -99 }));
    this.names = lanes.map((lane, i) => this.node('text', { class: `name lane-${i}`, x: -99 },
      lane.start.name));
    this.scale(0.1, 100);
  },

  scale(seconds, speed) {
    Object.assign(this, { seconds, speed });
    this.marks.forEach((mark, i) => setText(mark, rate((speed * i) / 2).replace('.0', '')));
    this.times.forEach((mark, i) => setText(mark, `${+((seconds * i) / 2).toPrecision(3)} s`));
  },

  draw() {
    const points = lanes.flatMap((lane) => lane.points);
    const seconds = Math.max(this.seconds, ...points.map((point) => nice(point[0])));
    const speed = Math.max(this.speed, ...points.map((point) => nice(point[1])));
    if (seconds > this.seconds || speed > this.speed) this.scale(seconds, speed);
    lanes.forEach((lane, i) => this.drawLane(lane.points.map((point) => this.place(point)), i));
  },

  place([time, speed]) {
    const x = this.left + (time / this.seconds) * (this.right - this.left);
    const y = this.bottom - (speed / this.speed) * (this.bottom - this.top);
    return [x.toFixed(1), y.toFixed(1)];
  },

  drawLane(places, i) {
    this.lines[i].setAttribute('points', places.join(' '));
    if (!places.length) return;
    const [x, y] = places[places.length - 1];
    this.heads[i].setAttribute('cx', x);
    this.heads[i].setAttribute('cy', y);
    this.names[i].setAttribute('x', Math.min(x, this.right - 24));
    this.names[i].setAttribute('y', y - 10);
  },
};

// The smallest of 1, 2, 4, 6, 8, 10 times a power of ten that is not below the value.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 4, 6, 8, 10].find((step) => step * power >= value * 0.999) * power;
}

// ---- the player ---------------------------------------------------------------------------

const lanes = [...root.querySelectorAll('.lane')].map((section) => new Lane(section));
const status = find('.status');
const speeds = [...root.querySelectorAll('[name=speed]')];
const player = { run: null, seq: -1, clock: 0, last: 0, chosen: false, end: null };

function say(text, kind = 'plain', note = '') {
  setText(find('.status-text'), text);
  setText(find('.status-note'), note);
  status.dataset.kind = kind;
}

function setPlaying(playing) {
  Object.assign(player, { playing, pending: false });
  root.dataset.state = playing ? 'racing' : 'idle';
  root.setAttribute('aria-busy', String(playing));
  setButtons(playing);
}

// Run and Stop are Gradio's buttons; they follow what is playing here, not only what is computing.
function setButtons(playing) {
  const [run, stop] = ['run', 'stop'].map((id) => document.getElementById(id));
  if (run) run.disabled = playing;
  if (stop) stop.disabled = !playing;
}

function speed() {
  return Number(speeds.find((input) => input.checked).value);
}

function noteSpeed() {
  const slow = speeds.find((input) => input.checked);
  setText(find('.playback-note'), calm.matches
    ? 'Reduced motion: results appear as they are computed.'
    : slow.value === '1'
      ? 'Real time, as fast as this machine computes both.'
      : `Slow motion ${slow.parentNode.textContent}: both lanes slowed equally. ` +
        'The figures are the real, measured ones.');
}

// No later than the last event that has arrived from the lane furthest behind.
function horizon() {
  return Math.min(...lanes.map((lane) => (lane.arrived ? Infinity : lane.horizon)));
}

function frame(now) {
  if (!player.playing) return;
  const passed = Math.min(now - player.last, 100) / 1000;
  if (!calm.matches || now - player.last >= CALM_PAINT_MS || player.end) {
    player.last = now;
    player.clock = calm.matches ? horizon() : Math.min(player.clock + passed * speed(), horizon());
    paint();
  }
  if (player.end && lanes.every((lane) => lane.done)) finish();
  else requestAnimationFrame(frame);
}

function paint() {
  const moved = lanes.filter((lane) => lane.advance(player.clock));
  if (!moved.length) return;
  for (const lane of moved) {
    lane.drawFigures();
    lane.follow();
  }
  drawRatio(lanes.map((lane) => lane.metrics.tokens_per_second));
  chart.draw();
}

function drawRatio([first, second]) {
  if (!first || !second) return;
  const ratio = first / second;
  setText(find('.ratio'), `${ratio.toFixed(2)}×`);
  find('.ratio').dataset.value = ratio;
  setText(find('.absolutes'), `${rate(first)} against ${rate(second)} tokens/s`);
}

function begin(message) {
  lanes.forEach((lane, i) => lane.begin(message.lanes[i]));
  lanes.forEach((lane) => lane.setState('running'));
  if (!player.chosen) {
    speeds.forEach((input) => { input.checked = Number(input.value) === message.speed; });
    noteSpeed();
  }
  Object.assign(player, { clock: 0, last: performance.now(), end: null });
  setText(find('.ratio'), '–');
  setText(find('.absolutes'), 'D2F’s tokens/s over AR’s');
  chart.begin();
  say('The race is on.');
  setPlaying(true);
  requestAnimationFrame(frame);
}

function finish() {
  lanes.forEach((lane, i) => lane.settle(player.end.lanes[i]));
  drawRatio(player.end.lanes.map((lane) => lane.metrics.tokens_per_second));
  say(player.end.summary, 'summary', player.end.note);
  setPlaying(false);
  root.dataset.state = 'finished';
}

// Stop freezes what is shown; events not yet shown are dropped.
function halt() {
  if (!player.playing && !player.pending) return;
  player.stopped = player.run;
  for (const lane of lanes) {
    lane.queue = [];
    if (!lane.done) lane.setState('stopped');
  }
  say('Stopped. What had been decided stays on the board.');
  setPlaying(false);
  root.dataset.state = 'stopped';
}

const KINDS = {
  start: begin,
  step: (message) => lanes[message.lane].receive(message),
  status: (message) => {
    player.pending = true;
    say(message.text);
    setButtons(true);
  },
  stopped: halt,
  end: (message) => { player.end = message; },
  error: (message) => {
    if (player.playing) halt();
    player.pending = false;
    setButtons(false);
    say(message.text, 'error');
  },
};

function receive(packed) {
  if (!packed) return;
  const { run, seq, messages } = JSON.parse(packed);
  if (run === player.stopped || (run === player.run && seq <= player.seq)) return;
  Object.assign(player, { run, seq });
  for (const message of messages) KINDS[message.kind](message);
}

speeds.forEach((input) => input.addEventListener('change', () => {
  player.chosen = true;
  noteSpeed();
}));
calm.addEventListener('change', noteSpeed);
document.addEventListener('click', (event) => {
  if (event.target.closest && event.target.closest('#stop')) halt();
});
noteSpeed();
chart.begin();
receive(props.value);
watch('value', () => receive(props.value));
