// @ts-check
// ---- chart --------------------------------------------------------------------------------

const chart = {
  svg: find('.chart'),
  left: 42, // room for four digits
  right: 250,
  top: 18,
  bottom: 222,
  seconds: 0, // at the right end of the axis
  speed: 0, // at its top, in tokens a second
  /** @type {SVGElement[]} */
  marks: [],
  /** @type {SVGElement[]} */
  times: [],
  /** @type {SVGElement[]} */
  lines: [],
  /** @type {SVGElement[]} */
  heads: [],
  /** @type {SVGElement[]} */
  names: [],

  /**
   * @param {string} tag
   * @param {Record<string, string|number>} attributes
   * @param {string} text
   */
  node(tag, attributes, text = '') {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
    node.textContent = text;
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
    this.times = [0, 1, 2].map((i) =>
      this.node('text', {
        class: 'mark',
        x: this.left + (i * (this.right - this.left)) / 2,
        y: this.bottom + 18,
        'text-anchor': ['start', 'middle', 'end'][i],
      }),
    );
    this.lines = lanes.map((_, i) => this.node('polyline', { class: `line lane-${i}` }));
    this.heads = lanes.map((_, i) =>
      this.node('circle', { class: `head lane-${i}`, r: 4, cx: -99 }),
    );
    this.names = lanes.map((lane, i) =>
      this.node('text', { class: `name lane-${i}`, x: -99 }, lane.start.name),
    );
    this.scale(0.1, 100);
  },

  /** @param {number} seconds @param {number} speed */
  scale(seconds, speed) {
    Object.assign(this, { seconds, speed });
    for (const [i, mark] of this.marks.entries()) {
      setText(mark, rate((speed * i) / 2).replace('.0', ''));
    }
    for (const [i, mark] of this.times.entries()) {
      setText(mark, `${+((seconds * i) / 2).toPrecision(3)} s`);
    }
  },

  draw() {
    const points = lanes.flatMap((lane) => lane.points);
    const seconds = nice(Math.max(0, ...points.map(([time]) => time)));
    const speed = nice(Math.max(0, ...points.map(([, speed]) => speed)));
    if (seconds > this.seconds || speed > this.speed) {
      this.scale(Math.max(seconds, this.seconds), Math.max(speed, this.speed));
    }
    for (const [i, lane] of lanes.entries()) this.drawLane(lane.points, i);
  },

  /** @param {Point[]} points @param {number} i */
  drawLane(points, i) {
    const places = points.map((point) => this.place(point));
    this.lines[i].setAttribute('points', places.join(' '));
    const [x, y] = places[places.length - 1] ?? [-99, 0];
    this.heads[i].setAttribute('cx', String(x));
    this.heads[i].setAttribute('cy', String(y));
    this.names[i].setAttribute('x', String(Math.min(x, this.right - 24)));
    this.names[i].setAttribute('y', String(y - 10));
  },

  /** @param {Point} point */
  place([time, speed]) {
    const x = this.left + (time / this.seconds) * (this.right - this.left);
    const y = this.bottom - (speed / this.speed) * (this.bottom - this.top);
    return [x, y].map((place) => Math.round(place * 10) / 10);
  },
};

/**
 * The smallest of 1, 2, 4, 6, 8, 10 times a power of ten that is not below the value; 0 of 0.
 * @param {number} value
 */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 4, 6, 8, 10].find((step) => step * power >= value * 0.999) ?? 10;
  return step * power;
}
