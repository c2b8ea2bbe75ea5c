// @ts-check
// ---- messages -----------------------------------------------------------------------------
//
// What each message of the server (messages.js) does to the board. Last but the tour: it starts
// the board with what `props.value` holds by then.

const INSTEAD = 'Publish can give it a short one.';
const TAKES_BOARD = ['start', 'status'];
const SILENCE_MS = 30_000; // a run says at least once a second that it lives

/** @param {Start} message */
function begin(message) {
  for (const [i, lane] of lanes.entries()) {
    lane.begin(message.lanes[i]);
    lane.setState('running');
  }
  if (!player.chosen) {
    for (const input of speeds) input.checked = Number(input.value) === message.speed;
    noteSpeed();
  }
  const { recorded = false, turn = 1 } = message;
  Object.assign(player, { clock: 0, end: null, pending: false, recorded });
  drawRatio([0, 0]);
  chart.begin();
  const which = turn > 1 ? `, turn ${turn} of a conversation` : '';
  say(recorded ? `A recorded race${which}.` : 'The race is on.', 'plain', paceInWords());
  hooks.begun(message);
  play('racing');
}

// Stop freezes what is shown; events not yet shown are dropped.
function halt() {
  if (!player.live && !player.pending) return;
  over.add(player.run);
  player.pending = false;
  if (!player.live) {
    hooks.busy(false);
    say('Stopped before it began.');
    hooks.halted();
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
  hooks.halted();
}

/**
 * The run on the board can say no more: it failed, or what it said cannot be read.
 * @param {string} text
 */
function fail(text) {
  hooks.failed();
  if (running()) halt();
  hooks.busy(false);
  refuse(text);
}

/**
 * No race is on the board.
 * @param {string} text
 */
function clear(text) {
  over.add(player.run);
  for (const lane of lanes) {
    lane.begin({ ...lane.start, chat: [] });
    lane.now.hidden = true;
    lane.setState('ready');
  }
  Object.assign(player, { run: 'none', clock: 0, end: null, pending: false });
  Object.assign(player, { recorded: false, refused: null });
  drawRatio([0, 0]);
  chart.begin();
  pipeline.draw();
  say(text);
  setMode('idle', { live: false });
}

/** @param {Download} message */
function save(message) {
  const link = make('a');
  link.href = URL.createObjectURL(new Blob([message.text], { type: 'application/json' }));
  link.download = message.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {Link} [link] */
function copyLink(link = player.end?.link) {
  if (!link) note('There is no finished race to link to yet.');
  else if (link.refused) note(`${link.refused} ${outside('publish') ? INSTEAD : ''}`);
  else {
    const path = `${location.pathname}#race=${link.race}`;
    const closed = !navigator.clipboard; // not on https, nor on this machine
    if (closed) history.replaceState(null, '', path);
    copy(
      location.origin + path,
      'The link to this race',
      closed ? 'The address bar holds the link now.' : '',
    );
  }
}

/**
 * The short link is said in words as well: by now the browser may refuse the clipboard.
 * @param {Published} message
 */
function showPublished({ id, prompt }) {
  const link = `${location.origin}${location.pathname}?race=${id}`;
  const title = prompt.length > 40 ? `${prompt.slice(0, 40)}…` : prompt;
  copy(link, `Published. The short link to “${title}”`, link);
}

/** @type {{ [K in Message['kind']]: (message: Extract<Message, { kind: K }>, own: boolean) => void }} */
const KINDS = {
  fill: (message) => hooks.fill(message),
  published: showPublished,
  file: save,
  start: begin,
  step: (message) => lanes[message.lane].receive(message),
  clock: (message) => lanes[message.lane].pass(message.time, message.over),
  status: (message) => {
    player.pending = true;
    say(message.text);
    hooks.busy(true);
  },
  stopped: halt,
  end: (message) => {
    player.end = message;
    for (const [i, lane] of lanes.entries()) lane.close(message.lanes[i], player.clock);
    if (message.lanes.some((lane) => lane.steps)) {
      chart.begin(); // its scale was that of other figures
      player.unpainted = true;
    }
    if (document.querySelector('#charts > button.open')) outside('redraw')?.click();
    hooks.ended(message);
  },
  // `over`: it ended the run on the board, which could not say so itself.
  error: (message, own) => {
    const end = own || (message.over && running());
    (end ? fail : refuse)(message.text);
  },
};

/** @param {string} packed */
function receive(packed) {
  try {
    if (packed) take(packed);
  } catch (error) {
    console.error(error);
    fail('The page cannot read what the server sent. Reload the page and try again.');
  }
}

/** @param {string} packed */
function take(packed) {
  /** @type {Pack} */
  const { run, seq, messages, opening } = JSON.parse(packed);
  player.heard = performance.now();
  if (over.has(run) || (run === player.run && seq <= player.seq)) return;
  // The visitor was quicker than the page's first answer, or goes on where they were.
  if (opening && (hooks.opened() || player.run)) return;
  const takes = messages.some(({ kind }) => TAKES_BOARD.includes(kind));
  if (run !== player.run && (takes || !(player.live || player.pending))) {
    over.add(player.run);
    player.run = run;
  }
  const own = run === player.run;
  if (own) player.seq = seq;
  for (const message of messages) {
    const tell = /** @type {(message: Message, own: boolean) => void} */ (KINDS[message.kind]);
    tell(message, own);
  }
  if (own) setPace();
}

setInterval(() => {
  const waits = running() && !player.end;
  if (waits && performance.now() - player.heard > SILENCE_MS) {
    fail('The server has not been heard for half a minute. Try again, or reload the page.');
  }
}, 1000);
watchPixels();
drawLegend();
noteSpeed();
chart.begin();
drawTransport();
receive(props.value);
watch('value', () => receive(props.value));
