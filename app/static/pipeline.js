// ---- pipeline -----------------------------------------------------------------------------
//
// Blocks over time: one bar a block, from its birth to the cache, a tick a commit. The AR lane is
// drawn below on the same axis, a bar for as many tokens as a row of its grid has.

const pipeline = {
  canvas: find('.pipeline canvas'), left: 64, right: 12, foot: 24, row: 13, gap: 5,

  get rows() {
    return lanes.flatMap((lane, i) =>
      lane.spans.filter(Boolean).map((span, block) => ({ lane, i, span, block })));
  },

  colours() {
    const style = getComputedStyle(this.canvas);
    const read = (name) => style.getPropertyValue(name).trim();
    return {
      muted: read('--muted'), line: read('--line'),
      tint: [read('--d2f-tint'), read('--ar-tint')], strong: [read('--d2f-ink'), read('--ar-ink')],
    };
  },

  draw() {
    const { rows, canvas } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const scale = window.devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const pen = canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${getComputedStyle(canvas).fontFamily}`;
    pen.textBaseline = 'middle';
    this.pen = pen;
    this.paper = { width, height, colours: this.colours() };
    this.axis();
    const room = height - this.foot - this.gap - 8;
    const step = Math.min(this.row + 3, room / Math.max(1, rows.length));
    rows.forEach((row, n) => this.bar(row, 4 + n * step + (row.i ? this.gap : 0), step * 0.8));
  },

  x(time) {
    return this.left + (time / chart.seconds) * (this.paper.width - this.left - this.right);
  },

  axis() {
    const { pen, paper: { height, colours } } = this;
    pen.fillStyle = colours.muted;
    pen.strokeStyle = colours.line;
    [0, 1, 2, 3, 4].forEach((i) => {
      const time = (chart.seconds * i) / 4, x = Math.round(this.x(time)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height - this.foot);
      pen.stroke();
      pen.textAlign = i === 4 ? 'end' : i ? 'center' : 'start';
      pen.fillText(`${+time.toPrecision(3)} s`, x, height - this.foot / 2);
    });
  },

  bar({ lane, i, span, block }, y, height) {
    const { pen, paper: { colours } } = this;
    const cached = span.states.find(([, state]) => state === 'cached');
    const over = lane.diffusion ? lane.shown.time : span.commits[span.commits.length - 1];
    const from = this.x(span.born), until = this.x(cached ? cached[0] : over);
    pen.fillStyle = colours.tint[i];
    pen.fillRect(from, y, Math.max(1, until - from), height);
    this.activity(span, from, y, height, until, i);
    pen.fillStyle = colours.strong[i];
    for (const time of span.commits) pen.fillRect(this.x(time) - 1, y + 1, 1.5, height - 2);
    if (height < 8 && block % 4) return;
    pen.fillStyle = colours.muted;
    pen.textAlign = 'end';
    pen.fillText(`${lane.start.name} ${block + 1}`, this.left - 8, y + height / 2);
  },

  // A line under the bar while the block is fully activated: it must commit at every step.
  activity({ states }, from, y, height, until, i) {
    const start = states.find(([, state]) => state === 'fully_activated');
    if (!start) return;
    const end = states.find(([, state]) => state === 'completed' || state === 'cached');
    const x = this.x(start[0]);
    this.pen.fillStyle = this.paper.colours.strong[i];
    this.pen.fillRect(x, y + height - 2, (end ? this.x(end[0]) : until) - x, 2);
  },
};

