// ---- the player ---------------------------------------------------------------------------
//
// Plays the events of both lanes on one clock. `props.value` is a packed JSON string (app/run.py).
// A live event is shown when the clock reaches its time, never before it has arrived; afterwards
// the same events can be played again, scrubbed and stepped through. Figures are those of the
// events shown.

// The grid moves 30 times a second; figures, words, lines and bars every third time. More would only
// take time from the models where they share their machine with the page.
const PAINT_MS = 30, WHOLE = 3, CALM_PAINT_MS = 1000;
// A live race's events come in batches (app/run.py). What has arrived is shown over so many seconds,
// where the chosen speed would show it in less and then wait for the next batch.
const SPREAD = 0.25;
const lanes = [...root.querySelectorAll('.lane')].map((section) => new Lane(section));
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
const status = find('.status');
const speeds = [...root.querySelectorAll('[name=speed]')];
const transport = {
  play: find('.play'), back: find('.back'), forth: find('.forth'), scrub: find('.scrub'),
  clock: find('.clock'),
};
const player = {
  run: null, seq: -1, clock: 0, last: 0, handle: 0, chosen: false, end: null,
  live: false, pending: false, playing: false, recorded: false, paints: 0, unpainted: false, pace: 0,
};
const over = new Set(); // runs that were stopped here, or lost the board to another
const INSTEAD = 'Publish can give it a short one.';
const TAKES_BOARD = ['start', 'recall', 'status'];

function say(text, kind = 'plain', note = '') {
  setText(find('.status-text'), text);
  setText(find('.status-note'), note);
  status.dataset.kind = kind;
}

// What is said beside the status, which keeps the race's result.
const note = (text) => setText(find('.status-note'), text);

// `live`: a run is computing, or is still being shown for the first time.
function setMode(state, { live = player.live, playing = false } = {}) {
  Object.assign(player, { live, playing });
  if (player.unpainted) paint();
  root.dataset.state = state;
  find('.arena').setAttribute('aria-busy', String(live));
  setButtons(player.pending || (live && !player.recorded));
  drawTransport();
}

// Run and Stop are Gradio's buttons; they follow what is playing here, not only what is computing.
function setButtons(live) {
  const [run, stop] = ['run', 'stop'].map((id) => document.getElementById(id));
  if (!run || !stop) return;
  const at = document.activeElement; // a disabled button would drop the keyboard's place
  run.disabled = live;
  stop.disabled = !live;
  if (at === run && live) stop.focus();
  if (at === stop && !live) run.focus();
}

function speed() {
  return Number(speeds.find((input) => input.checked).value);
}

function noteSpeed() {
  const chosen = speeds.find((input) => input.checked);
  const label = chosen.parentNode.textContent.trim();
  setText(find('.playback-note'), calm.matches
    ? 'Reduced motion: results appear as they are computed.'
    : chosen.value === '1'
      ? 'Real time, as it was measured.'
      : `${Number(chosen.value) < 1 ? 'Slow motion' : 'Fast motion'} ${label}, the same for both ` +
        'lanes. The figures are the real, measured ones.');
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
  if (!end) return lanes.forEach((lane) => lane.done || lane.setState('stopped'));
  lanes.forEach((lane, i) => lane.settle(end.lanes[i]));
  const whole = end.lanes.every((lane) => lane.metrics.finish_reason !== null);
  drawRatio(end.lanes.map((lane) => (whole ? lane.metrics.tokens_per_second : 0)));
  say(end.summary, 'summary', end.note);
}

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

function step(direction) {
  const times = lanes.flatMap((lane) => lane.timeline.map((event) => event.time));
  const ahead = times.filter((time) => (time - player.clock) * direction > 1e-9);
  if (!ahead.length) seek(direction < 0 ? 0 : limit());
  else seek(direction < 0 ? Math.max(...ahead) : Math.min(...ahead));
}

function toggle() {
  if (player.playing) return setMode('paused');
  if (player.live) return play('racing');
  if (player.clock >= duration()) seek(0);
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
  for (const { talk } of moved) talk.scrollTop = talk.scrollHeight;
}

// Everything drawn on a canvas, in the colours of the page as it is now.
function dress() {
  lanes.forEach((lane) => lane.sheet.dress());
  pipeline.dress();
  drawLegend();
}

// A canvas has the pixels of the screen and the zoom it was drawn for.
function watchPixels() {
  const same = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  same.addEventListener('change', () => { dress(); watchPixels(); }, { once: true });
}

function drawRatio([first, second]) {
  const ratio = first && second ? first / second : null;
  setText(find('.ratio'), ratio ? `${ratio.toFixed(2)}×` : '–');
  find('.ratio').dataset.value = ratio ?? '';
  setText(find('.absolutes'), ratio
    ? `${rate(first)} against ${rate(second)} tokens/s` : 'D2F’s tokens/s over AR’s');
}

function drawTransport() {
  const total = duration();
  const { play: button, scrub, clock } = transport;
  for (const node of [button, transport.back, transport.forth, scrub]) node.disabled = !total;
  button.dataset.playing = String(player.playing);
  button.setAttribute('aria-label', player.playing ? 'Pause' : 'Play');
  scrub.max = total || 1;
  scrub.value = player.clock;
  const text = `${player.clock.toFixed(3)} of ${total.toFixed(3)} s`;
  if (!player.playing) scrub.setAttribute('aria-valuetext', text);
  setText(clock, text);
}

// ---- messages

function begin(message) {
  lanes.forEach((lane, i) => lane.begin(message.lanes[i]));
  lanes.forEach((lane) => lane.setState('running'));
  if (!player.chosen) {
    speeds.forEach((input) => { input.checked = Number(input.value) === message.speed; });
    noteSpeed();
  }
  const recorded = Boolean(message.recorded);
  Object.assign(player, { clock: 0, end: null, pending: false, recorded });
  drawRatio([0, 0]);
  chart.begin();
  const turn = message.turn > 1 ? `, turn ${message.turn} of a conversation` : '';
  say(recorded ? `A recorded race${turn}.` : 'The race is on.');
  play('racing');
}

// Stop freezes what is shown; events not yet shown are dropped.
function halt() {
  if (!player.live && !player.pending) return;
  over.add(player.run);
  player.pending = false;
  if (!player.live) {
    setButtons(false);
    say('Stopped before it began.');
    return;
  }
  player.end = null;
  for (const lane of lanes) {
    lane.timeline.length = lane.next;
    lane.horizon = lane.shown.time;
    if (!lane.done) lane.setState('stopped');
  }
  player.clock = Math.min(player.clock, duration());
  say('Stopped. What had been decided stays on the board.');
  setMode('stopped', { live: false });
}

// A conversation without a run: after a reload, an edit, or when it was cleared.
function recall(message) {
  for (const [i, lane] of lanes.entries()) {
    lane.begin({ ...lane.start, chat: message.chats[i] });
    lane.setState('ready');
    lane.talk.scrollTop = lane.talk.scrollHeight;
  }
  Object.assign(player, { clock: 0, end: null, pending: false });
  drawRatio([0, 0]);
  chart.begin();
  pipeline.draw();
  say(message.text);
  setMode('idle', { live: false });
}

function save(message) {
  const link = make('a');
  link.href = URL.createObjectURL(new Blob([message.text], { type: 'application/json' }));
  link.download = message.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function copyLink() {
  const link = player.end?.link;
  if (!link) note('There is no finished race to link to yet.');
  else if (link.refused) note(`${link.refused} ${document.getElementById('publish') ? INSTEAD : ''}`);
  else {
    const path = `${location.pathname}#race=${link.race}`;
    const closed = !navigator.clipboard; // not on https, nor on this machine
    if (closed) history.replaceState(null, '', path);
    copy(location.origin + path, 'The link to this race',
      closed ? 'The address bar holds the link now.' : '');
  }
}

// The short link is said in words as well: by now the browser may refuse the clipboard.
function showPublished({ id, prompt }) {
  const link = `${location.origin}${location.pathname}?race=${id}`;
  const title = prompt.length > 40 ? `${prompt.slice(0, 40)}…` : prompt;
  copy(link, `Published. The short link to “${title}”`, link);
}

const KINDS = {
  recall,
  published: showPublished,
  file: save,
  start: begin,
  step: (message) => lanes[message.lane].receive(message),
  clock: (message) => lanes[message.lane].pass(message.time, message.over),
  status: (message) => {
    player.pending = true;
    say(message.text);
    setButtons(true);
  },
  stopped: halt,
  end: (message) => {
    player.end = message;
    lanes.forEach((lane, i) => lane.close(message.lanes[i], player.clock));
    if (message.lanes.some((lane) => lane.steps)) {
      chart.begin(); // its scale was that of other figures
      player.unpainted = true;
    }
    if (document.querySelector('#charts > button.open')) document.getElementById('redraw').click();
  },
  error: (message, own) => {
    if (own) {
      if (player.live) halt();
      player.pending = false;
      setButtons(false);
    }
    say(message.text, 'error');
  },
};

function receive(packed) {
  if (!packed) return;
  const { run, seq, messages, opening } = JSON.parse(packed);
  if (over.has(run) || (run === player.run && seq <= player.seq)) return;
  if (opening && player.run) return; // the visitor was quicker than the page's first answer
  const takes = messages.some(({ kind }) => TAKES_BOARD.includes(kind));
  if (run !== player.run && (takes || !(player.live || player.pending))) {
    over.add(player.run);
    player.run = run;
  }
  const own = run === player.run;
  if (own) player.seq = seq;
  for (const message of messages) KINDS[message.kind](message, own);
  if (own) setPace();
}

// ---- controls

speeds.forEach((input) => input.addEventListener('change', () => {
  player.chosen = true;
  noteSpeed();
}));
calm.addEventListener('change', noteSpeed);
transport.play.addEventListener('click', toggle);
transport.back.addEventListener('click', () => step(-1));
transport.forth.addEventListener('click', () => step(1));
let wanted = null; // the scrubber may ask more often than a screen can show
transport.scrub.addEventListener('input', () => {
  if (wanted === null) requestAnimationFrame(() => { seek(wanted); wanted = null; });
  wanted = Number(transport.scrub.value);
});
transport.scrub.addEventListener('keydown', (event) => {
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
  if (event.key === ' ') toggle();
  else if (event.key in keys) step(keys[event.key]);
  else return;
  event.preventDefault();
});
document.addEventListener('click', (event) => {
  if (!event.target.closest) return;
  if (event.target.closest('#stop')) halt();
  if (event.target.closest('#copy-link')) copyLink();
});
window.addEventListener('hashchange', () => {
  if (location.hash.startsWith('#race=')) document.getElementById('opener')?.click();
});
new ResizeObserver(() => pipeline.measure()).observe(pipeline.canvas);
const dresser = new MutationObserver(dress);
for (const node of [document.documentElement, document.body]) {
  dresser.observe(node, { attributes: true, attributeFilter: ['class'] });
}
watchPixels();
drawLegend();
noteSpeed();
chart.begin();
drawTransport();
receive(props.value);
watch('value', () => receive(props.value));
