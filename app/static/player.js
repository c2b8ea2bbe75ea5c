// @ts-check
// ---- the player ---------------------------------------------------------------------------
//
// Plays the events of both lanes on one clock. `props.value` is a packed JSON string (app/page/tell.py).
// A live event is shown when the clock reaches its time, never before it has arrived; afterwards
// the same events can be played again, scrubbed and stepped through. Figures are those of the
// events shown.

// The grid moves 30 times a second; figures, words, lines and bars every third time. More would only
// take time from the models where they share their machine with the page.
const PAINT_MS = 30;
const WHOLE = 3;
const CALM_PAINT_MS = 1000;
// A live race's events come in batches (app/page/tell.py). What has arrived is shown over so many seconds,
// where the chosen speed would show it in less and then wait for the next batch.
const SPREAD = 0.25;
/** @type {NodeListOf<HTMLElement>} */
const sections = root.querySelectorAll('.lane');
const arena = find('.arena');
const lanes = [...sections].map((section) => new Lane(section));
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
/** @type {NodeListOf<HTMLInputElement>} */
const speeds = root.querySelectorAll('[name=speed]');
/** @type {Record<'play'|'back'|'forth', HTMLButtonElement> & { scrub: HTMLInputElement }} */
const transport = {
  play: find('.play'),
  back: find('.back'),
  forth: find('.forth'),
  scrub: find('.scrub'),
};
const player = {
  run: '',
  seq: -1,
  clock: 0,
  last: 0,
  handle: 0,
  chosen: false,
  /** @type {End|null} */
  end: null,
  live: false,
  pending: false,
  playing: false,
  recorded: false,
  paints: 0,
  unpainted: false,
  pace: 0,
  heard: 0, // when the server last said something
  /** @type {string|null} */
  refused: null, // the run on the board when an error was told
};
/** @type {Set<string>} */
const over = new Set(); // runs that were stopped here, or lost the board to another

/**
 * An error that was told during the run on the board stays; what the run says stands beside it.
 * @param {string} text
 */
function say(text, kind = 'plain', beside = '') {
  if (player.refused === player.run) return note([text, beside].filter(Boolean).join(' '));
  setText(find('.status-text'), text);
  note(beside);
  find('.status').dataset.kind = kind;
}

/**
 * What is said beside the status, which keeps the race's result.
 * @param {string} text
 */
const note = (text) => setText(find('.status-note'), text);

/**
 * Says an error; the result that it takes the place of goes beside it.
 * @param {string} text
 */
function refuse(text) {
  const result = find('.status').dataset.kind === 'summary' && find('.status-text').textContent;
  player.refused = null;
  say(text, 'error', result || '');
  player.refused = player.run;
}

// Whether a run is computing, or is being shown for the first time: one that Stop ends.
const running = () => player.pending || (player.live && !player.recorded);

/**
 * `live`: a run is computing, or is still being shown for the first time.
 * @param {string} state
 */
function setMode(state, { live = player.live, playing = false } = {}) {
  Object.assign(player, { live, playing });
  if (player.unpainted) paint();
  root.dataset.state = state;
  arena.setAttribute('aria-busy', String(live));
  hooks.busy(running());
  drawTransport();
}

/**
 * One of Gradio's buttons, by its elem_id; none in an exported race.
 * @param {string} id
 */
const outside = (id) => /** @type {HTMLButtonElement|null} */ (document.getElementById(id));

/** @returns {HTMLInputElement} */
const chosenSpeed = () => find('[name=speed]:checked');
const speed = () => Number(chosenSpeed().value);

function paceInWords() {
  const chosen = chosenSpeed();
  const label = chosen.parentElement?.textContent.trim();
  if (calm.matches) return 'Reduced motion: results appear as they are computed.';
  if (chosen.value === '1') return 'Real time, as it was measured.';
  const motion = speed() < 1 ? 'Slow motion' : 'Fast motion';
  return `${motion} ${label}, the same for both lanes. The figures are the real, measured ones.`;
}

function noteSpeed() {
  setText(find('.playback-note'), paceInWords());
  if (player.live && !player.refused) note(paceInWords());
}

// ---- the clock

const duration = () => Math.max(...lanes.map((lane) => lane.horizon));

// Live: no later than the last event that has arrived from the lane furthest behind.
function limit() {
  if (!player.live) return duration();
  const behind = Math.min(...lanes.map((lane) => (lane.arrived ? Infinity : lane.horizon)));
  return Math.min(behind, duration());
}

const computing = () => player.live && !lanes.every((lane) => lane.arrived);

function setPace() {
  player.clock = Math.min(player.clock, limit());
  player.pace = (limit() - player.clock) / SPREAD;
}

/** @param {string} state */
function play(state) {
  setPace();
  player.last = performance.now();
  setMode(state, { playing: true, live: state === 'racing' });
  nextFrame();
}

function nextFrame() {
  cancelAnimationFrame(player.handle);
  player.handle = requestAnimationFrame(frame);
}

/** @param {number} now */
function frame(now) {
  if (!player.playing) return;
  const gone = Math.max(0, now - player.last);
  const jump = calm.matches && player.live;
  if (gone >= (jump && !player.end ? CALM_PAINT_MS : PAINT_MS)) {
    player.last = now;
    const passed = Math.min(gone, 100) / 1000;
    const pace = computing() ? Math.min(speed(), player.pace) : speed();
    player.clock = jump ? limit() : Math.min(player.clock + passed * pace, limit());
    if (lanes.filter((lane) => lane.advance(player.clock)).length) player.unpainted = true;
    player.paints += 1;
    const whole = jump || player.paints % WHOLE === 0;
    if (player.unpainted) paint(whole);
    if (whole) drawTransport();
  }
  if (lanes.every((lane) => lane.exhausted) && (player.end || !player.live)) arrive();
  else nextFrame();
}

// The end of the timeline, live or replayed.
function arrive() {
  const { end } = player;
  player.clock = duration();
  setMode(end ? 'finished' : 'stopped', { live: false });
  if (!end) {
    for (const lane of lanes) if (!lane.done) lane.setState('stopped');
    return;
  }
  for (const [i, lane] of lanes.entries()) lane.settle(end.lanes[i]);
  hooks.settled();
  for (const lane of lanes) lane.scroll();
  const whole = end.lanes.every((lane) => lane.metrics.finish_reason !== null);
  drawRatio(end.lanes.map((lane) => (whole ? lane.metrics.tokens_per_second : 0)));
  say(end.summary, 'summary', end.note);
}

/** @param {number} time */
function seek(time) {
  player.clock = Math.max(0, Math.min(time, limit()));
  for (const lane of lanes) {
    if (lane.shown.time > player.clock) lane.rewind();
    if (!lane.next) lane.setState('running');
    lane.advance(player.clock);
  }
  paint();
  if (!player.live && lanes.every((lane) => lane.exhausted)) arrive();
  else setMode('paused');
}

/** @param {1|-1} direction */
function step(direction) {
  const times = lanes.flatMap((lane) => lane.timeline.map((event) => event.time));
  const ahead = times.filter((time) => (time - player.clock) * direction > 1e-9);
  if (!ahead.length) seek(direction < 0 ? 0 : limit());
  else seek(direction < 0 ? Math.max(...ahead) : Math.min(...ahead));
}

function toggle() {
  if (player.playing) return setMode('paused');
  if (player.live) return play('racing');
  if (player.clock >= duration()) {
    player.refused = null; // the visitor goes on
    seek(0);
  }
  return play('replaying');
}

// ---- drawing

function paint(whole = true) {
  const moved = lanes.filter((lane) => lane.next);
  for (const lane of moved) lane.follow();
  if (!whole) return;
  player.unpainted = false;
  for (const lane of moved) {
    lane.drawFigures();
    lane.drawAnswer();
  }
  drawRatio(lanes.map((lane) => lane.metrics.tokens_per_second));
  chart.draw();
  pipeline.draw();
  // Last: what it reads makes the browser lay the page out.
  for (const lane of moved) lane.scroll();
}

// Everything drawn on a canvas, in the colours of the page as it is now.
function dress() {
  for (const lane of lanes) lane.sheet.dress();
  pipeline.dress();
  drawLegend();
}

// A canvas has the pixels of the screen and the zoom it was drawn for.
function watchPixels() {
  const same = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  same.addEventListener(
    'change',
    () => {
      dress();
      watchPixels();
    },
    { once: true },
  );
}

/** @param {number[]} speeds of both lanes, 0: unknown */
function drawRatio([first, second]) {
  const ratio = first && second ? first / second : null;
  setText(find('.ratio'), ratio ? `${ratio.toFixed(2)}×` : '–');
  find('.ratio').dataset.value = String(ratio ?? '');
}

function drawTransport() {
  const total = duration();
  const { play, back, forth, scrub } = transport;
  for (const node of [play, back, forth, scrub]) node.disabled = !total;
  play.dataset.playing = String(player.playing);
  play.setAttribute('aria-label', player.playing ? 'Pause' : 'Play');
  scrub.max = String(total || 1);
  scrub.value = String(player.clock);
  const text = `${player.clock.toFixed(3)} of ${total.toFixed(3)} s`;
  if (!player.playing) scrub.setAttribute('aria-valuetext', text);
  setText(find('.clock'), text);
}

// ---- controls

for (const input of speeds) {
  input.addEventListener('change', () => {
    player.chosen = true;
    noteSpeed();
  });
}
calm.addEventListener('change', noteSpeed);
transport.play.addEventListener('click', toggle);
transport.back.addEventListener('click', () => step(-1));
transport.forth.addEventListener('click', () => step(1));
let asked = 0; // the scrubber may ask more often than a screen can show
transport.scrub.addEventListener('input', () => {
  const time = Number(transport.scrub.value);
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(() => seek(time));
});
transport.scrub.addEventListener('keydown', (event) => {
  if (event.key === ' ') toggle();
  else if (event.key === 'ArrowLeft' || event.key === 'ArrowDown') step(-1);
  else if (event.key === 'ArrowRight' || event.key === 'ArrowUp') step(1);
  else return;
  event.preventDefault();
});
document.addEventListener('click', ({ target }) => {
  if (!(target instanceof Element)) return;
  if (target.closest('#copy-link')) copyLink();
});
window.addEventListener('hashchange', () => {
  if (/^#race(=|%)/i.test(location.hash)) hooks.link(location.hash.slice(1));
});
// On a phone the lanes lie beside each other, and one of them is in sight.
/** @type {NodeListOf<HTMLButtonElement>} */
const tabs = root.querySelectorAll('.tabs button');
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener('click', () => sections[i].scrollIntoView({ block: 'nearest' }));
}
arena.addEventListener(
  'scroll',
  () => {
    const seen = Math.round(arena.scrollLeft / arena.clientWidth);
    for (const [i, tab] of tabs.entries()) tab.setAttribute('aria-pressed', String(i === seen));
  },
  { passive: true },
);
new ResizeObserver(() => pipeline.measure()).observe(pipeline.pen.canvas);
const dresser = new MutationObserver(dress);
for (const node of [document.documentElement, document.body]) {
  dresser.observe(node, { attributes: true, attributeFilter: ['class'] });
}
