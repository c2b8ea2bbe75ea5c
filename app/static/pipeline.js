// @ts-check
// ---- pipeline -----------------------------------------------------------------------------
//
// Blocks over time: one bar a block, from its birth to the cache, a tick a commit. The AR lane is
// drawn below on the same axis, a bar for as many tokens as a row of its grid has.

const pipeline = {
  pen: penOf(find('.pipeline canvas')),
  left: 64,
  right: 12,
  foot: 24,
  row: 13,
  gap: 5,
  width: 0,
  height: 0,
  /** @type {Inks[]} */
  inks: [], // of each lane

  /** @returns {Row[]} */
  get rows() {
    return lanes.flatMap((lane, i) =>
      lane.spans.filter(Boolean).map((span, block) => ({ lane, i, span, block })),
    );
  },

  measure() {
    this.width = this.pen.canvas.clientWidth;
    this.height = this.pen.canvas.clientHeight;
    this.draw();
  },

  dress() {
    this.inks = lanes.map((lane) => inks(lane.section));
    this.draw();
  },

  draw() {
    const { rows, pen, width, height } = this;
    if (!width) return;
    sheet(pen.canvas, width, height);
    if (!this.inks.length) this.dress();
    pen.font = `12px ${this.inks[0].font}`;
    pen.textBaseline = 'middle';
    this.axis();
    const room = height - this.foot - this.gap - 8;
    const step = Math.min(this.row + 3, room / Math.max(1, rows.length));
    for (const [n, row] of rows.entries()) {
      this.bar(row, 4 + n * step + (row.i ? this.gap : 0), step * 0.8);
    }
  },

  /** @param {number} time */
  x(time) {
    return this.left + (time / chart.seconds) * (this.width - this.left - this.right);
  },

  axis() {
    const { pen, height } = this;
    pen.fillStyle = this.inks[0].muted;
    pen.strokeStyle = this.inks[0].line;
    for (const i of [0, 1, 2, 3, 4]) {
      const time = (chart.seconds * i) / 4;
      const x = Math.round(this.x(time)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height - this.foot);
      pen.stroke();
      pen.textAlign = i === 4 ? 'end' : i ? 'center' : 'start';
      pen.fillText(`${+time.toPrecision(3)} s`, x, height - this.foot / 2);
    }
  },

  /** @param {Row} row @param {number} y @param {number} height */
  bar({ lane, i, span, block }, y, height) {
    const { pen } = this;
    const ink = this.inks[i];
    const cached = span.states.find(([, state]) => state === 'cached');
    const over = lane.diffusion ? lane.shown.time : span.commits[span.commits.length - 1];
    const from = this.x(span.born);
    const until = this.x(cached ? cached[0] : over);
    pen.fillStyle = ink.tint;
    pen.fillRect(from, y, Math.max(1, until - from), height);
    pen.fillStyle = ink['accent-ink'];
    this.activity(span, y + height - 2, until);
    for (const time of span.commits) pen.fillRect(this.x(time) - 1, y + 1, 1.5, height - 2);
    if (height < 8 && block % 4) return;
    pen.fillStyle = ink.muted;
    pen.textAlign = 'end';
    pen.fillText(`${lane.start.name} ${block + 1}`, this.left - 8, y + height / 2);
  },

  /**
   * A line under the bar while the block is fully activated: it must commit at every step.
   * @param {Span} span
   * @param {number} y
   * @param {number} until
   */
  activity({ states }, y, until) {
    const start = states.find(([, state]) => state === 'fully_activated');
    if (!start) return;
    const end = states.find(([, state]) => state === 'completed' || state === 'cached');
    const x = this.x(start[0]);
    this.pen.fillRect(x, y, (end ? this.x(end[0]) : until) - x, 2);
  },
};
