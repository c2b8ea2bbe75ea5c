// @ts-check
// ---- the form -----------------------------------------------------------------------------
//
// The model pair and the settings, which go with every question; presets that were measured; and
// beside each setting what it did in the race on the board.

const form = {
  /** @type {HTMLSelectElement} */
  pair: find('.pair'),
  fields: find('.fields'),
  presets: find('.presets'),
  /** @type {Record<string, HTMLInputElement|HTMLSelectElement>} */
  inputs: {},
  /** @type {Record<string, HTMLElement>} */
  effects: {},

  begin() {
    const { pairs, pair, settings, refused } = props.form;
    for (const { name, title } of pairs) this.pair.append(new Option(title, name));
    this.pair.value = pair;
    for (const setting of settings) this.fields.append(this.field(setting));
    find('.refused').append(...refused.map((text) => make('li', '', text)));
    this.defaults();
  },

  /** @param {SettingText} setting */
  field({ name, label, text, choices }) {
    const row = make('div', 'field');
    const title = make('label', '', label);
    const input = choices.length ? make('select') : make('input');
    const what = make('p', 'what', text);
    const effect = make('p', 'effect');
    if (input instanceof HTMLInputElement) Object.assign(input, { type: 'number', step: 'any' });
    else input.append(...choices.map((choice) => new Option(choice)));
    input.id = title.htmlFor = `setting-${name}`;
    what.id = `about-${name}`;
    input.setAttribute('aria-describedby', what.id);
    row.append(title, input, what, effect);
    this.inputs[name] = input;
    this.effects[name] = effect;
    return row;
  },

  get chosen() {
    return props.form.pairs.find(({ name }) => name === this.pair.value) ?? props.form.pairs[0];
  },

  // The settings of the chosen pair, and its presets.
  defaults() {
    const { settings, presets } = this.chosen;
    this.fill(settings);
    const own = presets.length ? [{ name: 'As shipped', told: '', settings }] : [];
    this.presets.replaceChildren(...[...own, ...presets].map((each) => this.preset(each)));
    setText(
      find('.presets-note'),
      presets.length
        ? 'Figures of the committed sweep, all measured in one run on one machine.'
        : 'No sweep was measured for these models, so there are no presets.',
    );
  },

  /** @param {Preset} preset */
  preset({ name, told, settings }) {
    const button = make('button', 'preset', name);
    button.type = 'button';
    if (told) button.append(make('small', '', told));
    button.addEventListener('click', () => this.fill(settings));
    return button;
  },

  /** @param {Settings} settings */
  fill(settings) {
    for (const [name, value] of Object.entries(settings)) {
      if (name in this.inputs) this.inputs[name].value = value === null ? '' : String(value);
    }
    this.narrow();
  },

  // Only what counts under the chosen commit rule.
  narrow() {
    const rule = this.inputs.rule.value;
    for (const { rules, name } of props.form.settings) {
      const row = this.inputs[name].parentElement;
      if (row) row.hidden = rules.length > 0 && !rules.includes(rule);
    }
  },

  /** @returns {Settings} */
  get settings() {
    const values = Object.entries(this.inputs).map(([name, input]) => {
      if (input instanceof HTMLSelectElement) return [name, input.value];
      return [name, input.value ? Number(input.value) : null];
    });
    return Object.fromEntries(values);
  },

  // What each setting did in the race on the board.
  explain() {
    const [lane] = lanes;
    const effects = lane.diffusion && lane.done ? effectsIn(lane) : {};
    for (const [name, node] of Object.entries(this.effects)) setText(node, effects[name] ?? '');
  },
};

/**
 * @param {Lane} lane
 * @returns {Record<string, string>}
 */
function effectsIn(lane) {
  const { settings, block } = lane.start;
  const commits = lane.timeline.flatMap((step) => step.commits);
  const forced = commits.filter(([, , , flags]) => flags & FORCED).length;
  const flights = lane.timeline.map((step) => step.blocks.filter(inFlight).length);
  const most = Math.max(0, ...flights);
  const mean = flights.reduce((sum, each) => sum + each, 0) / Math.max(1, flights.length);
  const { tokens, forwards } = lane.shown;
  const blocks = lane.spans.filter(Boolean).length;
  const early = lane.spans.filter((span, i) => i && span && overlaps(lane.spans[i - 1], span));
  /** @param {string} name @param {string} text */
  const with_ = (name, text) => [name, `In this race, at ${settings[name] ?? 'none'}: ${text}`];
  return Object.fromEntries([
    with_(
      'max_new_tokens',
      lane.section.dataset.state?.startsWith('cut')
        ? 'the answer was cut there.'
        : `the answer ended after ${count(tokens, 'token')}.`,
    ),
    with_('block_size', `${count(blocks, 'block')} of ${block} tokens, ${forwards} forwards.`),
    with_(
      'tau_add',
      `${early.length} of ${count(blocks, 'block')} began before the one ahead was done.`,
    ),
    with_('tau_act', `${count(forced, 'token')} had to be forced in blocks without a sure one.`),
    with_(
      'tau_conf',
      `${commits.length - forced} of ${count(commits.length, 'token')} were kept because the ` +
        'model was sure of them.',
    ),
    with_('max_active_blocks', `at most ${most} in flight, ${mean.toFixed(1)} on average.`),
    with_(
      'temperature',
      settings.temperature ? 'tokens were drawn by chance.' : 'always the likeliest token.',
    ),
    with_('seed', settings.temperature ? 'it fixed the chance.' : 'no chance, so no effect.'),
  ]);
}

/** @param {BlockRow} row */
const inFlight = ([, , state]) => state === 'semi_activated' || state === 'fully_activated';

/** @param {Span} before @param {Span} span */
function overlaps(before, span) {
  const done = before?.states.find(([, state]) => state === 'completed' || state === 'cached');
  return !done || span.born < done[0];
}

/** @param {number} number @param {string} word */
const count = (number, word) => `${number} ${word}${number === 1 ? '' : 's'}`;

form.begin();
form.inputs.rule.addEventListener('change', () => form.narrow());
