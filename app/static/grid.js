// @ts-check
// ---- mask grid ----------------------------------------------------------------------------
//
// One row a block: its frame tells the block's state, a cell the token's. Drawn on a canvas as large
// as what is in sight, since a thousand elements cost a frame whenever one of them changes. What a
// cell holds is told to keyboard, pointer and screen reader by the lane's inspector.

const CELL = 21;
const GAP = 2;
const EDGE = 2;
const PAD = 2;
const CORNER = 4;
const NUMBER = 24;
const STATE = 82;
const NARROW = 430; // a phone: fewer cells in a line, so that they can be read
const INKS = ['page', 'panel', 'line', 'ink', 'muted', 'dot', 'accent', 'accent-ink', 'tint', 'on'];
/** @type {Record<RowState, { word: string, ink: string, dash?: number[] }>} */
const STATES = {
  waiting: { word: 'waiting', ink: 'line', dash: [2, 2] },
  semi_activated: { word: 'semi-active', ink: 'accent-ink', dash: [6, 4] },
  fully_activated: { word: 'fully active', ink: 'accent-ink' },
  completed: { word: 'completed', ink: 'muted' },
  cached: { word: 'cached', ink: 'tint' },
};

/**
 * The style's colours and fonts where `node` stands.
 * @param {Element} node
 * @returns {Inks}
 */
function inks(node) {
  const style = getComputedStyle(node);
  const found = INKS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]);
  return { ...Object.fromEntries(found), font: style.fontFamily };
}

/**
 * A canvas's pen; there is one, as the canvas was never used otherwise.
 * @param {HTMLCanvasElement} canvas
 */
const penOf = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));

/**
 * A canvas's pen, set to CSS pixels, on an empty sheet of the given size.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
function sheet(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  const pixels = [width, height].map((length) => Math.round(length * scale));
  if (canvas.width !== pixels[0]) canvas.width = pixels[0];
  if (canvas.height !== pixels[1]) canvas.height = pixels[1];
  const pen = penOf(canvas);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

/**
 * A square tile drawn by `draw`, repeated.
 * @param {number} size
 * @param {(pen: CanvasRenderingContext2D) => void} draw
 */
function pattern(size, draw) {
  const tile = make('canvas');
  const pen = sheet(tile, size, size);
  draw(pen);
  const repeated = /** @type {CanvasPattern} */ (pen.createPattern(tile, 'repeat'));
  repeated.setTransform(new DOMMatrix().scale(size / tile.width, size / tile.height));
  return repeated;
}

// Draws cells and frames in one lane's colours.
class Brush {
  /** @param {Element} node */
  constructor(node) {
    const ink = inks(node);
    this.ink = ink;
    this.dots = pattern(6, (pen) => {
      pen.fillStyle = ink.page;
      pen.fillRect(0, 0, 6, 6);
      pen.fillStyle = ink.dot;
      pen.beginPath();
      pen.arc(3, 3, 1.1, 0, 7);
      pen.fill();
    });
    this.stripes = pattern(8, (pen) => {
      pen.fillStyle = ink.panel;
      pen.fillRect(0, 0, 8, 8);
      pen.strokeStyle = ink.tint;
      pen.lineWidth = 8 / Math.SQRT2 / 2;
      pen.beginPath();
      for (const x of [-8, 0, 8]) {
        pen.moveTo(x - 2, -2);
        pen.lineTo(x + 10, 10);
      }
      pen.stroke();
    });
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {Look} cell
   */
  cell(pen, x, y, width, cell, height = CELL) {
    if (cell.beyond) return;
    const { ink } = this;
    pen.save();
    pen.translate(x, y);
    pen.beginPath();
    pen.roundRect(0, 0, width, height, CORNER);
    if (cell.now) pen.fillStyle = ink.accent;
    else if (cell.forced) pen.fillStyle = this.stripes;
    else if (cell.known) pen.fillStyle = cell.cached ? ink.panel : ink.tint;
    else pen.fillStyle = this.dots;
    pen.fill();
    if (cell.now) {
      pen.strokeStyle = ink.on;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.roundRect(0.75, 0.75, width - 1.5, height - 1.5, CORNER - 0.75);
      pen.stroke();
    }
    if (cell.forced) {
      const bar = cell.now ? 6 : 2;
      pen.fillStyle = cell.now ? ink.on : ink['accent-ink'];
      pen.fillRect(CORNER, height - bar, width - 2 * CORNER, bar);
    }
    pen.restore();
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {RowState} state
   */
  frame(pen, x, y, width, height, state) {
    const { tint, [STATES[state].ink]: edge } = this.ink;
    pen.beginPath();
    pen.roundRect(x + EDGE / 2, y + EDGE / 2, width - EDGE, height - EDGE, 6);
    if (state === 'cached') {
      pen.fillStyle = tint;
      pen.fill();
    }
    pen.strokeStyle = edge;
    pen.lineWidth = EDGE;
    pen.setLineDash(STATES[state].dash ?? []);
    pen.stroke();
    pen.setLineDash([]);
  }
}

class Grid {
  // What rule() makes of the grid's width and the lane's blocks, in CSS pixels.
  /** @type {number} */
  columns;
  /** @type {number} */
  tall; // of a row's frame
  /** @type {number} */
  pitch; // from row to row
  /** @type {number} */
  left; // of the frames
  /** @type {number} */
  inner; // left of the cells
  /** @type {number} */
  wide; // of a cell
  /** @type {number} */
  size; // of a token's text; 0 where there is no room for any

  /** @type {Brush} */
  brush;
  /** @type {CanvasRenderingContext2D} */
  pen;

  /** @param {Lane} lane @param {HTMLElement} box */
  constructor(lane, box) {
    this.lane = lane;
    this.box = box;
    this.top = this.width = this.height = 0;
    /** @type {Map<string, string>} */
    this.fitted = new Map();
    /** @type {Set<number>} */
    this.changed = new Set();
    /** @type {HTMLCanvasElement} */
    this.canvas = find('canvas', box);
    this.paper = find('.sheet', box);
    box.addEventListener(
      'scroll',
      () => {
        this.top = box.scrollTop;
        this.draw();
      },
      { passive: true },
    );
    new ResizeObserver(() => this.measure()).observe(box);
  }

  // A new run: as many rows as its canvas of tokens has blocks.
  begin() {
    this.rule();
    this.top = this.box.scrollTop = 0;
    this.draw();
  }

  // Another size: what is in sight stays there.
  measure() {
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    this.rule();
    this.top = this.box.scrollTop;
    this.draw();
  }

  // Other colours, or other pixels: the brush is made anew.
  dress() {
    this.brush = new Brush(this.lane.section);
    this.draw();
  }

  rule() {
    const { start, diffusion } = this.lane;
    const narrow = this.width <= NARROW;
    this.columns = Math.min(start.block, narrow ? COLUMNS / 2 : COLUMNS);
    const lines = Math.ceil(start.block / this.columns);
    this.tall = lines * CELL + (lines - 1) * GAP + 2 * (EDGE + PAD);
    this.pitch = this.tall + GAP;
    this.left = NUMBER + (diffusion && !narrow ? STATE : 0); // else the frame alone tells the state
    this.inner = this.left + EDGE + PAD;
    const room = this.width - this.inner - EDGE - PAD - (this.columns - 1) * GAP;
    this.wide = Math.max(1, room / this.columns);
    this.size = this.wide < 15 ? 0 : this.wide < 24 ? 9.5 : 11;
    this.fitted.clear();
    this.paper.style.height = `${this.lane.rows.length * this.pitch}px`;
  }

  /**
   * Where a position's cell stands on the whole sheet.
   * @param {number} position
   */
  place(position) {
    const { block } = this.lane.start;
    const row = this.lane.row(position);
    const within = position + this.lane.shared - row * block;
    const line = Math.floor(within / this.columns);
    const column = within % this.columns;
    return {
      x: this.inner + column * (this.wide + GAP),
      y: row * this.pitch + EDGE + PAD + line * (CELL + GAP),
      width: this.wide,
      height: CELL,
    };
  }

  /**
   * The position under the pointer, or null.
   * @param {PointerEvent} event
   */
  at({ clientX, clientY }) {
    const box = this.box.getBoundingClientRect();
    const x = clientX - box.left - this.inner;
    const y = clientY - box.top + this.top;
    const row = Math.floor(y / this.pitch);
    const line = Math.floor((y - row * this.pitch - EDGE - PAD) / (CELL + GAP));
    const column = Math.floor(x / (this.wide + GAP));
    const within = line * this.columns + column;
    const position = row * this.lane.start.block + within - this.lane.shared;
    const inside =
      column >= 0 &&
      column < this.columns &&
      line >= 0 &&
      within < this.lane.start.block &&
      position >= 0 &&
      position < this.lane.cells.length;
    return inside && row >= 0 ? position : null;
  }

  /** @param {number} position */
  reveal(position) {
    const { y, height } = this.place(position); // its line: a block may be taller than the grid
    const top = y - EDGE - PAD;
    const bottom = y + height + PAD + EDGE + GAP - this.height;
    const to = bottom > this.top ? bottom : Math.min(top, this.top);
    if (to === this.top) return;
    this.top = this.box.scrollTop = to;
    this.draw();
  }

  // All that is in sight.
  draw() {
    const { lane, width, height, top, pitch } = this;
    if (!width) return;
    this.brush ??= new Brush(lane.section);
    this.pen = sheet(this.canvas, width, height);
    this.pen.textBaseline = 'middle';
    const first = Math.floor(top / pitch);
    const last = Math.min(lane.rows.length, Math.ceil((top + height) / pitch));
    for (let row = first; row < last; row++) this.drawRow(row, row * pitch - top);
    this.changed.clear();
  }

  // What has changed since, if it is in sight.
  update() {
    if (!this.pen) return this.draw();
    for (const row of this.changed) {
      const y = row * this.pitch - this.top;
      if (y + this.pitch <= 0 || y >= this.height) continue;
      this.pen.clearRect(0, y - GAP / 2, this.width, this.pitch);
      this.drawRow(row, y);
    }
    this.changed.clear();
  }

  /** @param {number} row @param {number} y */
  drawRow(row, y) {
    const { pen, brush, lane, left } = this;
    const state = lane.rows[row];
    pen.fillStyle = brush.ink.muted;
    pen.font = `12px ${brush.ink.font}`;
    pen.textAlign = 'left';
    pen.fillText(String(row + 1), 0, y + this.tall / 2);
    if (lane.diffusion) {
      if (left > NUMBER) pen.fillText(STATES[state].word, NUMBER, y + this.tall / 2);
      brush.frame(pen, left, y, this.width - left, this.tall, state);
    }
    const from = row * lane.start.block - lane.shared;
    const until = Math.min(from + lane.start.block, lane.cells.length);
    for (let position = Math.max(0, from); position < until; position++)
      this.drawCell(position, state);
  }

  /** @param {number} position @param {RowState} state */
  drawCell(position, state) {
    const { pen, brush, lane, top } = this;
    const { token } = lane.cells[position];
    const { x, y, width } = this.place(position);
    const now = lane.fresh.has(position);
    const beyond = position > lane.stopAt;
    const forced = Boolean(token && token.flags & FORCED);
    const look = { known: token !== null, now, forced, beyond, cached: state === 'cached' };
    brush.cell(pen, x, y - top, width, look);
    if (token && this.size) this.drawText(token, x + width / 2, y - top + CELL / 2, look);
    if (position === lane.cursor) {
      pen.strokeStyle = brush.ink.ink;
      pen.lineWidth = 2;
      pen.strokeRect(x, y - top, width, CELL);
    }
  }

  /** @param {Token} token @param {number} x @param {number} y @param {Look} look */
  drawText({ text, flags }, x, y, { now = false, beyond }) {
    const { pen, brush } = this;
    const { muted, on, ink, font } = brush.ink;
    pen.font = `${now ? 650 : 400} ${this.size}px ${font}`;
    pen.fillStyle = beyond ? muted : now ? on : ink;
    pen.textAlign = 'center';
    pen.fillText(this.fit(flags & STOP ? '■' : visible(text), now), x, y);
  }

  /**
   * As much of a text as has room in a cell.
   * @param {string} text
   * @param {boolean} now
   */
  fit(text, now) {
    const key = `${now}${text}`;
    let kept = this.fitted.get(key);
    if (kept === undefined) {
      const letters = Array.from(text);
      while (letters.length > 1 && this.pen.measureText(letters.join('')).width > this.wide)
        letters.pop();
      kept = letters.join('');
      this.fitted.set(key, kept);
    }
    return kept;
  }
}

// The legend's samples, by the same brush.
function drawLegend() {
  const legend = find('.legend');
  const brush = new Brush(legend);
  for (const canvas of legend.querySelectorAll('canvas')) {
    const pen = sheet(canvas, 22, 16);
    const { cell = '', frame } = canvas.dataset;
    const look = Object.fromEntries(cell.split(' ').map((word) => [word, true]));
    if (frame) brush.frame(pen, 0, 0, 22, 16, /** @type {RowState} */ (frame));
    else brush.cell(pen, 0, 0, 22, look, 16);
  }
}
