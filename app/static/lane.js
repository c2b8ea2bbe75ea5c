// @ts-check
// One lane of the board: mask grid, answer and figures, driven by events up to a moment in time.

const FORCED = 1;
const STOP = 2;
const DRAFTED = 4;
const COLUMNS = 16;
const IDLE_CAPACITY = 160;
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

class Lane {
  // ---- what has arrived
  /** @type {LaneStart} */
  start;
  /** @type {Step[]} */
  timeline;
  /** @type {number} */
  horizon; // no event that is still to come is earlier
  /** @type {boolean} */
  arrived; // all of them

  // ---- what is shown of it
  /** @type {number} */
  next;
  /** @type {boolean} */
  done;
  /** @type {Shown} */
  shown;
  /** @type {Cell[]} */
  cells;
  /** @type {RowState[]} */
  rows;
  /** @type {number} */
  known;
  /** @type {Set<number>} */
  fresh; // positions of the last step
  /** @type {number} */
  stopAt;
  /** @type {number|null} */
  cursor;
  /** @type {Point[]} */
  points;
  /** @type {Span[]} */
  spans;
  /** @type {HTMLElement[]} */
  holes; // the answer's text by position
  /** @type {[position: number, text: string, flags: number][]} */
  unsaid; // commits that the answer does not show yet
  /** @type {number} */
  reserved;
  /** @type {string|null} */
  text; // the whole answer, once it is there

  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
    section.lane = this;
    this.grid = find('.grid', section);
    this.sheet = new Grid(this, this.grid);
    this.talk = find('.talk', section);
    this.history = find('.history', section);
    this.now = find('.now', section);
    this.asked = find('.said', this.now);
    this.answer = find('.answer', section);
    this.told = find('.told', section);
    this.later = find('.later', section);
    this.tab = find(`[data-tab="${section.dataset.lane}"]`);
    find('.copy', section).addEventListener('click', () =>
      // biome-ignore lint/performance/useDomNodeTextContent: copied as it is seen
      copy(this.text ?? this.answer.innerText, 'The answer'),
    );
    this.held = true;
    this.talk.addEventListener('scroll', () => this.hold(), { passive: true });
    this.inspector = find('.inspect', section);
    this.hint = this.inspector.textContent;
    this.state = find('.lane-state', section);
    /** @type {Record<string, HTMLElement>} */
    this.figures = Object.fromEntries(
      Object.keys(FIGURES).map((name) => [name, find(`[data-figure=${name}]`, section)]),
    );
    this.grid.addEventListener('pointermove', (event) => this.point(event));
    this.grid.addEventListener('pointerleave', () => this.inspect(this.cursor));
    this.grid.addEventListener('focus', () => this.inspect(this.cursor ?? 0));
    this.grid.addEventListener('blur', () => this.inspect(null));
    this.grid.addEventListener('keydown', (event) => this.walk(event));
    this.grid.addEventListener('pointerdown', (event) => {
      const position = this.sheet.at(event);
      if (position !== null) this.moveTo(position);
    });
    this.begin({
      name: find('.lane-name', section).textContent,
      model: find('.lane-model', section).textContent,
      decoder: String(section.dataset.decoder),
      capacity: IDLE_CAPACITY,
      block: COLUMNS,
      confidences: true,
      settings: {},
      chat: [],
    });
    this.now.hidden = true;
    this.setState('ready');
  }

  /**
   * A new run: no event has arrived yet.
   * @param {LaneStart} start
   */
  begin(start) {
    this.start = start;
    this.timeline = [];
    this.horizon = 0;
    this.arrived = false;
    setText(find('.lane-model', this.section), start.model);
    setText(find('.lane-name', this.section), start.name);
    this.section.dataset.decoder = start.decoder;
    this.recall(start.chat);
    this.rewind();
  }

  /**
   * What was said before this answer, prompts and answers in turn, and what is answered.
   * @param {string[]} chat
   */
  recall(chat) {
    const turns = Array.from({ length: chat.length >> 1 }, (_, i) => {
      const [prompt, text] = chat.slice(2 * i, 2 * i + 2);
      return folded(prompt, '', () => said(prompt, text));
    });
    this.history.replaceChildren(...turns);
    this.later.replaceChildren();
    this.now.hidden = false;
    setText(this.asked, chat[chat.length - 1] ?? '');
    this.held = true;
  }

  // Whether the end of the talk is in sight, and is to stay there.
  hold() {
    const { scrollHeight, scrollTop, clientHeight } = this.talk;
    this.held = scrollHeight - scrollTop - clientHeight < 40;
  }

  // The newest words stay in sight, unless the visitor looks at older ones.
  scroll() {
    if (this.held && !this.later.firstChild) this.talk.scrollTop = this.talk.scrollHeight;
  }

  // Back to before the first event; what has arrived is kept.
  rewind() {
    const { capacity } = this.start;
    this.next = this.known = this.reserved = 0;
    this.done = false;
    this.shown = { time: 0, tokens: 0, forwards: 0 };
    this.cells = Array.from({ length: capacity }, (_, position) => ({ position, token: null }));
    this.rows = Array(this.row(capacity - 1) + 1).fill('waiting');
    this.fresh = new Set();
    this.stopAt = Infinity;
    this.cursor = null;
    this.points = [];
    this.spans = [];
    this.holes = [];
    this.unsaid = [];
    this.text = null;
    this.answer.className = 'answer';
    this.answer.replaceChildren();
    this.sheet.begin();
    for (const node of [...Object.values(this.figures), this.tab]) setText(node, '–');
    this.inspect(null);
    this.setState('waiting');
  }

  // How many of the prompt's last tokens share the block that the answer begins in.
  get shared() {
    return this.start.shared ?? 0;
  }

  /**
   * The row of the grid, or block, in which a position is.
   * @param {number} position
   */
  row(position) {
    return Math.floor((position + this.shared) / this.start.block);
  }

  get diffusion() {
    return this.start.decoder !== 'ar';
  }

  get exhausted() {
    return this.next === this.timeline.length;
  }

  /** @param {string} word */
  setState(word) {
    this.section.dataset.state = word;
    this.drawState();
  }

  drawState() {
    const { rejected } = this.shown;
    const told = rejected === undefined ? '' : ` · ${rejected} drafted tokens rejected`;
    setText(this.state, `${this.section.dataset.state}${told}`);
  }

  /** @param {Step} event */
  receive(event) {
    this.timeline.push(event);
    this.horizon = event.time;
    this.arrived ||= event.finish !== null;
  }

  /**
   * Time goes by on another machine, or its run broke off.
   * @param {number} time
   * @param {boolean} over
   */
  pass(time, over) {
    this.horizon = Math.max(this.horizon, time);
    this.arrived ||= over;
  }

  /**
   * No event follows those that have arrived. `kept`: the run as it was counted in the end, where
   * that is not how it came; it takes the place of what was shown up to `clock`.
   * @param {LaneEnd} kept
   * @param {number} clock
   */
  close(kept, clock) {
    if (kept.start && kept.steps) {
      this.begin(kept.start);
      this.timeline = kept.steps;
      this.setState('running');
      this.advance(clock);
    }
    this.arrived = true;
    this.horizon = this.timeline.length ? this.timeline[this.timeline.length - 1].time : 0;
  }

  /**
   * Shows every event up to `clock`; true if anything changed.
   * @param {number} clock
   */
  advance(clock) {
    const first = this.next;
    while (this.next < this.timeline.length && this.timeline[this.next].time <= clock) {
      this.show(this.timeline[this.next++]);
    }
    return this.next > first;
  }

  /** @param {Step} event */
  show(event) {
    for (const position of this.fresh) this.touch(position);
    this.fresh = new Set(event.commits.map(([position]) => position));
    for (const position of this.fresh) this.touch(position);
    for (const commit of event.commits) this.commit(event, commit);
    for (const [position, text] of event.texts ?? []) this.reread(position, text);
    for (const [from, until, state] of event.blocks) {
      const block = this.row(from);
      this.rows[block] = state;
      this.touch(from);
      this.span(block).states.push([event.time, state]);
      this.reserved = until;
    }
    this.shown = event;
    if (event.tokens && event.time) this.points.push([event.time, event.tokens / event.time]);
    if (event.finish !== null) this.finish(event.finish);
  }

  /**
   * Room for a position beyond those asked for, which only a server that counts otherwise has.
   * @param {number} position
   */
  grow(position) {
    const rows = this.row(position) + 1;
    const capacity = rows * this.start.block - this.shared;
    this.start = { ...this.start, capacity };
    while (this.cells.length < capacity) {
      this.cells.push({ position: this.cells.length, token: null });
    }
    while (this.rows.length < rows) this.rows.push('waiting');
    this.sheet.rule();
  }

  /** @param {Step} event @param {CommitRow} commit */
  commit(event, [position, text, confidence, flags]) {
    if (position >= this.cells.length) this.grow(position);
    this.cells[position].token = { text, confidence, flags, step: event.forwards };
    this.known += 1;
    this.span(this.row(position)).commits.push(event.time);
    if (flags & STOP) this.stop(position);
    this.unsaid.push([position, text, flags]);
  }

  /**
   * A token that is part of a character reads differently once its neighbours are there.
   * @param {number} position
   * @param {string} text
   */
  reread(position, text) {
    const { token } = this.cells[position];
    if (!token) return;
    token.text = text;
    this.unsaid.push([position, text, token.flags]);
    this.touch(position);
  }

  /**
   * The row of a position looks different from now on.
   * @param {number} position
   */
  touch(position) {
    this.sheet.changed.add(this.row(position));
  }

  /**
   * The life of one row of the grid, for the pipeline view: born with the step that first has it.
   * @param {number} block
   */
  span(block) {
    this.spans[block] ??= { born: this.shown.time, states: [], commits: [] };
    return this.spans[block];
  }

  // Answer text: one span a position, a hole where the token is still masked. Nothing is said
  // behind the first stop token.
  drawAnswer() {
    for (const [position, text, flags] of this.unsaid) this.write(position, text, flags);
    this.unsaid = [];
    this.reserve(this.reserved);
    for (const span of this.holes.slice(this.stopAt)) span.hidden = true;
    this.answer.classList.toggle('mono', MONO.test(this.answer.textContent));
  }

  /** @param {number} until */
  reserve(until) {
    while (this.holes.length < Math.min(until, this.start.capacity)) {
      const hole = make('span', 'hole');
      this.holes.push(hole);
      this.answer.append(hole);
    }
  }

  /** @param {number} position @param {string} text @param {number} flags */
  write(position, text, flags) {
    this.reserve(position + 1);
    const span = this.holes[position];
    span.className = flags & FORCED ? 'word forced' : 'word';
    setText(span, flags & STOP ? '' : text);
  }

  /**
   * No cell behind this one belongs to the answer.
   * @param {number} position
   */
  stop(position) {
    if (position >= this.stopAt) return;
    this.stopAt = position;
    for (const row of this.rows.keys()) this.sheet.changed.add(row);
  }

  /** @param {string} reason */
  finish(reason) {
    this.done = true;
    this.stop(this.shown.tokens);
    this.setState(reason === 'stop' ? 'finished' : 'cut at max new tokens');
  }

  /** @returns {Figures} */
  get metrics() {
    const { time, tokens, forwards } = this.shown;
    return {
      tokens,
      forwards,
      seconds: time,
      tokens_per_second: time ? tokens / time : 0,
      tokens_per_forward: forwards ? tokens / forwards : 0,
    };
  }

  /** @param {Figures} metrics */
  drawFigures(metrics = this.metrics) {
    const values = {
      tps: metrics.tokens_per_second,
      tokens: metrics.tokens,
      forwards: metrics.forwards,
      tpf: metrics.tokens_per_forward,
      seconds: metrics.seconds,
    };
    for (const [name, value] of Object.entries(values)) {
      setText(this.figures[name], FIGURES[name](value));
      this.figures[name].dataset.value = String(value);
    }
    setText(this.tab, rate(values.tps));
    this.drawState();
  }

  // The newest token stays in sight.
  follow() {
    if (this.fresh.size) this.sheet.reveal(Math.max(...this.fresh));
    this.sheet.update();
  }

  /**
   * The tokenizer's own reading of the whole answer, as it is to be read.
   * @param {LaneEnd} final
   */
  settle(final) {
    this.fresh.clear();
    this.sheet.draw();
    this.drawFigures(final.metrics);
    this.drawAnswer();
    this.text = final.text;
    this.answer.replaceChildren(...hooks.rendered(final.text));
    this.answer.classList.toggle('mono', MONO.test(final.text));
    if (final.metrics.finish_reason === null) this.setState('broken off');
  }

  // ---- one cell under the pointer or the keyboard's cursor

  /** @param {PointerEvent} event */
  point(event) {
    const position = this.sheet.at(event);
    if (position !== null) this.inspect(position);
  }

  /** @param {KeyboardEvent} event */
  walk(event) {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [rows, columns] = ARROWS[event.key];
    const to = (this.cursor ?? 0) + rows * this.sheet.columns + columns;
    if (to >= 0 && to < this.cells.length) this.moveTo(to);
  }

  /** @param {number} position */
  moveTo(position) {
    this.cursor = position;
    this.sheet.reveal(position);
    this.sheet.draw();
    this.inspect(position);
  }

  /** @param {number|null} position */
  inspect(position) {
    const text = position === null ? this.hint : this.describe(this.cells[position]);
    setText(this.inspector, text);
    this.grid.setAttribute('aria-valuemax', String(this.cells.length));
    this.grid.setAttribute('aria-valuenow', String((position ?? 0) + 1));
    this.grid.setAttribute('aria-valuetext', text);
  }

  /** @param {Cell} cell */
  describe({ position, token }) {
    const block = this.row(position) + 1;
    const where = `position ${position + 1}${this.diffusion ? `, block ${block}` : ''}`;
    if (!token) return `Mask · ${where}`;
    const what = token.flags & STOP ? 'End of answer' : `“${token.text.replace(/\n/g, '⏎')}”`;
    const sure = this.start.confidences
      ? `confidence ${(100 * token.confidence).toFixed(1)} %`
      : 'confidence not told';
    const forced = token.flags & FORCED ? ' · forced, the best of its block' : '';
    const drafted = token.flags & DRAFTED ? ' · drafted from earlier text, and right' : '';
    return `${what} · ${where} · step ${token.step} · ${sure}${forced}${drafted}`;
  }
}
