// @ts-check
// ---- the chat -----------------------------------------------------------------------------
//
// Which conversation is open and which turn of it is on the board. What is asked goes to the server
// with all that was said before: it keeps no conversation.

const MAX_TURNS = 32; // as many as the server reads
const WELCOME = [
  'A diffusion model: it fills blocks of the answer in parallel.',
  'An autoregressive model: it writes the same answer word by word.',
];

const chat = {
  /** @type {Chat|null} */
  current: null,
  /** @type {{ prompt: string, base: Turn[], from: number|null }|null} */
  asking: null, // what runs; `from`: the turn that it takes the place of
  /** @type {{ index: number, play: boolean }|null} */
  opening: null, // the turn of this chat that is to come to the board
  /** @type {number|null} */
  at: null, // the turn on the board
  /** @type {number|null} */
  from: null, // the turn that is being edited
  drawing: false, // a fresh problem was asked for

  get turns() {
    return this.current?.turns ?? [];
  },

  /**
   * Asks both models.
   * @param {string} prompt
   * @param {number|null} from the turn to ask anew
   */
  ask(prompt, from = null) {
    if (running()) return;
    if (this.guest) this.current = null; // what is not seen is not continued
    const base = this.turns.slice(0, from ?? undefined);
    const run = newId();
    this.asking = { prompt, base, from };
    this.opening = null;
    over.add(player.run);
    Object.assign(player, { run, seq: -1, pending: true, heard: performance.now(), refused: null });
    hooks.busy(true);
    composer.offer([]);
    say('Asking both models.');
    const turns = base.slice(-MAX_TURNS).map(({ prompt, answers }) => ({ prompt, answers }));
    const past = this.current && turns.length ? { pair: this.current.pair, turns } : null;
    trigger('ask', { run, prompt, pair: form.pair.value, settings: form.settings, past });
  },

  // Whether the board shows a race that is not of this chat.
  get guest() {
    return player.recorded && this.at === null && !this.asking;
  },

  // A new chat; the old one stays in the list.
  fresh() {
    this.stop();
    Object.assign(this, { current: null, asking: null, opening: null, at: null });
    this.edit(null);
    chats.open();
    clear('');
    this.welcome();
    composer.prompt.focus();
  },

  // An empty thread.
  welcome() {
    for (const [i, lane] of lanes.entries()) {
      lane.history.replaceChildren(make('p', 'welcome', WELCOME[i]));
    }
    this.offer();
  },

  stop() {
    if (running()) trigger('halt');
    halt();
  },

  /** @param {Chat} kept */
  open(kept) {
    this.stop();
    this.recall(kept);
    chats.open(kept.id);
    this.show(kept.turns.length - 1, false);
  },

  // The chat that was open last, unless the address asks for something.
  restore() {
    const names = ['race', 'prompt', 'pair', ...Object.keys(form.inputs)];
    const query = new URLSearchParams(location.search);
    const asks = location.hash.startsWith('#race') || names.some((name) => query.has(name));
    const last = asks ? null : chats.last();
    if (last) this.recall(last);
    else this.welcome();
  },

  // The page's first answer is there: a chat that was restored goes before it.
  opened() {
    if (!this.current || this.asking || this.at !== null) return false;
    this.show(this.turns.length - 1, false);
    return true;
  },

  /** @param {Chat} kept */
  recall(kept) {
    Object.assign(this, { current: kept, asking: null, at: null });
    this.edit(null);
    clear('Your chat is still here.');
    if (props.form.pairs.some(({ name }) => name === kept.pair) && form.pair.value !== kept.pair) {
      form.pair.value = kept.pair;
      form.defaults();
    }
    thread.draw(kept.turns);
    thread.unfold();
    this.offer();
  },

  /**
   * Brings a turn to the board.
   * @param {number} index
   * @param {boolean} play from its beginning
   */
  show(index, play) {
    const { race } = this.turns[index].link;
    if (!race) return;
    this.opening = { index, play };
    trigger('link', { link: `race=${race}` });
  },

  /** @param {Start} start */
  begun({ recorded, lanes: [{ chat: said }] }) {
    const prompt = said[said.length - 1];
    if (!recorded && this.asking) {
      const { base } = this.asking;
      this.at = null;
      thread.draw(base, base.length, base.length - (said.length >> 1));
      composer.edit();
      return;
    }
    this.asking = null;
    this.at = null;
    const { opening } = this;
    if (opening && this.turns[opening.index]?.prompt === prompt) {
      this.at = opening.index;
      thread.draw(this.turns, this.at);
    } else {
      this.opening = null;
      thread.foot(GUEST);
      if (scrollY > 0) root.scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth' });
    }
    this.offer();
  },

  /** @param {End} end */
  ended(end) {
    if (this.asking && !player.recorded) this.keep(end, this.asking);
    if (!this.opening) return;
    const { play } = this.opening;
    this.opening = null;
    if (play) return;
    player.live = false;
    seek(duration());
  },

  /**
   * A turn that both lanes finished goes into the chat. One that takes the place of an earlier turn
   * begins a chat of its own, so that those behind that turn are not lost.
   * @param {End} end
   * @param {{ prompt: string, base: Turn[], from: number|null }} asked
   */
  keep(end, { prompt, base, from }) {
    this.asking = null;
    if (end.lanes.some(({ metrics }) => metrics.finish_reason === null)) return;
    const turn = {
      prompt,
      answers: end.lanes.map(({ spoken, text }) => spoken ?? text),
      figures: end.lanes.map(({ metrics }) => ({
        tps: metrics.tokens_per_second,
        tpf: metrics.tokens_per_forward,
        seconds: metrics.seconds,
      })),
      link: end.link,
      next: end.follow_up,
    };
    const branches = from !== null && from < this.turns.length - 1;
    const id = (!branches && this.current?.id) || newId();
    this.current = { id, pair: form.pair.value, at: 0, turns: [...base, turn] };
    this.at = base.length;
    chats.write(this.current);
  },

  // What ran is over, and no turn of the chat.
  halted() {
    this.asking = null;
    this.offer();
  },

  // The prompt is not lost.
  failed() {
    if (this.asking && !composer.prompt.value) composer.write(this.asking.prompt);
  },

  settled() {
    if (this.at !== null) thread.foot(this.at);
    this.offer();
    form.explain();
  },

  // Suggestions: to begin with, or what goes on from the last answer.
  offer() {
    const last = this.turns[this.turns.length - 1];
    const next = this.at === this.turns.length - 1 && last?.next;
    const ask = (/** @type {string} */ prompt) => () => this.ask(prompt);
    if (running()) composer.offer([]);
    else if (next) composer.offer([{ text: next, ask: ask(next) }]);
    else if (this.turns.length && !this.guest) composer.offer([]);
    else {
      composer.offer([
        { text: 'A random problem', ask: () => this.draw() },
        ...props.form.examples.map(({ prompt, task }) => ({
          text: prompt,
          title: task,
          ask: ask(prompt),
        })),
      ]);
    }
  },

  // A fresh problem, which is asked when it is there.
  draw() {
    this.drawing = true;
    trigger('draw');
  },

  /** @param {Fill} message */
  fill({ prompt, pair, settings }) {
    if (pair && pair !== form.pair.value) {
      form.pair.value = pair;
      form.defaults();
    }
    if (settings) form.fill(settings);
    if (settings && !pair) note('The settings are in the form now: ask something to race them.');
    if (prompt !== undefined) composer.write(prompt);
    if (prompt !== undefined && this.drawing) composer.form.requestSubmit();
    this.drawing = false;
  },

  /** @param {number|null} from */
  edit(from) {
    this.from = from;
    if (from === null) return composer.edit();
    composer.edit(`Editing “${this.turns[from].prompt.slice(0, 40)}”.`);
    composer.write(this.turns[from].prompt);
    composer.prompt.focus();
  },
};

Object.assign(hooks, {
  opened: chat.opened.bind(chat),
  begun: chat.begun.bind(chat),
  ended: chat.ended.bind(chat),
  settled: chat.settled.bind(chat),
  halted: chat.halted.bind(chat),
  failed: chat.failed.bind(chat),
  fill: chat.fill.bind(chat),
  busy: composer.busy.bind(composer),
  link: (/** @type {string} */ link) => trigger('link', { link }),
});

/** @type {Record<Act, (index: number) => void>} */
const DO = {
  show: (index) => chat.show(index, false),
  replay: (index) => chat.show(index, true),
  share: (index) => copyLink(chat.turns[index]?.link),
  again: (index) => chat.ask(chat.turns[index].prompt, index),
  edit: (index) => chat.edit(index),
};
arena.addEventListener('click', ({ target }) => {
  const button = target instanceof Element && target.closest('[data-act]');
  if (!(button instanceof HTMLElement)) return;
  const { act, turn } = button.dataset;
  DO[/** @type {Act} */ (act)](Number(turn));
});
composer.form.addEventListener('submit', (event) => {
  event.preventDefault();
  const prompt = composer.prompt.value;
  if (running() || !prompt.trim()) return;
  const { from } = chat;
  chat.edit(null);
  composer.write('');
  chat.ask(prompt, from);
});
composer.stop.addEventListener('click', () => chat.stop());
find('button', composer.editing).addEventListener('click', () => {
  chat.edit(null);
  composer.write('');
});
find('.new-chat').addEventListener('click', () => chat.fresh());
form.pair.addEventListener('change', () => {
  form.defaults();
  if (chat.current && chat.current.pair !== form.pair.value) chat.fresh();
});
composer.write('');
chat.restore();
