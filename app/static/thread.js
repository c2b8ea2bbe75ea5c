// @ts-check
// ---- the threads --------------------------------------------------------------------------
//
// A chat's turns in both lanes: those before and behind the one on the board, each folded to a line,
// the same open in both. What can be done with a turn is below it.

const GUEST = -1; // a race on the board that is no turn of the chat
const ACTIONS = {
  show: 'Show on the board',
  replay: 'Replay',
  share: 'Copy link',
  again: 'Ask again',
  edit: 'Edit',
};
/** @typedef {keyof typeof ACTIONS} Act */

const thread = {
  /**
   * @param {Turn[]} turns
   * @param {number} at the turn that is on the board; its number when it is not there yet
   * @param {number} dropped so many of the first ones were left out
   */
  draw(turns, at = turns.length, dropped = 0) {
    for (const [i, lane] of lanes.entries()) {
      const nodes = turns.map((turn, index) => this.turn(turn, index, i, index < dropped));
      lane.history.replaceChildren(...nodes.slice(0, at));
      lane.later.replaceChildren(...nodes.slice(at + 1));
      if (dropped) nodes[dropped - 1].after(this.gap(dropped));
    }
    this.foot(null);
  },

  /** @param {Turn} turn @param {number} index @param {number} i @param {boolean} dropped */
  turn(turn, index, i, dropped) {
    const { tps, tpf, seconds } = turn.figures[i];
    const node = folded(turn.prompt, `${rate(tps)} tok/s`, () => [
      ...said(turn.prompt, turn.answers[i]),
      make('p', 'turn-figures', told(tps, tpf, seconds)),
      this.actions(index, turn.link.race ? ['show', 'replay', 'share'] : [], ['again', 'edit']),
    ]);
    node.dataset.turn = String(index);
    if (dropped) node.classList.add('dropped');
    return node;
  },

  /** @param {number} dropped */
  gap(dropped) {
    const gone =
      dropped === 1
        ? 'turn is left out: it no longer fits'
        : `${dropped} turns are left out: they no longer fit`;
    return make('p', 'gap', `The oldest ${gone} the models’ context.`);
  },

  /** @param {number} index @param {Act[][]} groups */
  actions(index, ...groups) {
    const row = make('div', 'actions');
    for (const act of groups.flat()) {
      const button = make('button', 'act', ACTIONS[act]);
      button.type = 'button';
      button.dataset.act = act;
      button.dataset.turn = String(index);
      row.append(button);
    }
    return row;
  },

  /**
   * What can be done with the turn on the board, once it is there; null: nothing but to copy it.
   * @param {number|null} index
   */
  foot(index) {
    /** @type {Act[]} */
    const acts = index === GUEST ? ['share'] : ['share', 'again', 'edit'];
    for (const lane of lanes) {
      lane.told.querySelector('.actions')?.remove();
      if (index !== null) lane.told.append(this.actions(index, acts));
    }
  },

  // The newest turn is open.
  unfold() {
    for (const lane of lanes) {
      const last = lane.history.querySelector('details:last-of-type');
      if (last instanceof HTMLDetailsElement) last.open = true;
      lane.talk.scrollTop = lane.talk.scrollHeight;
    }
  },
};

/** @param {number} tps @param {number} tpf @param {number} seconds */
const told = (tps, tpf, seconds) =>
  `${rate(tps)} tokens/s · ${FIGURES.tpf(tpf)} tokens/forward · ${FIGURES.seconds(seconds)} s`;

arena.addEventListener(
  'toggle',
  ({ target }) => {
    if (!(target instanceof HTMLDetailsElement) || !target.dataset.turn) return;
    const same = arena.querySelectorAll(`details[data-turn="${target.dataset.turn}"]`);
    for (const node of /** @type {NodeListOf<HTMLDetailsElement>} */ (same)) {
      if (node.open !== target.open) node.open = target.open;
    }
  },
  true,
);
