// @ts-check
// ---- the composer -------------------------------------------------------------------------

const composer = {
  /** @type {HTMLFormElement} */
  form: find('.composer'),
  /** @type {HTMLTextAreaElement} */
  prompt: find('.prompt'),
  /** @type {HTMLButtonElement} */
  send: find('.send'),
  /** @type {HTMLButtonElement} */
  stop: find('.stop'),
  chips: find('.chips'),
  editing: find('.editing'),

  // As tall as its text, up to a third of the screen.
  grow() {
    const { style, scrollHeight } = this.prompt;
    style.height = 'auto';
    style.height = `${Math.min(this.prompt.scrollHeight, window.innerHeight / 3)}px`;
    style.overflowY = scrollHeight > window.innerHeight / 3 ? 'auto' : 'hidden';
    this.send.disabled = !this.prompt.value.trim();
  },

  /** @param {string} text */
  write(text) {
    this.prompt.value = text;
    this.grow();
  },

  /** @param {boolean} running */
  busy(running) {
    const at = document.activeElement; // what is hidden drops the keyboard's place
    this.send.hidden = running;
    this.stop.hidden = !running;
    if (at === this.send && running) this.stop.focus();
    if (at === this.stop && !running) this.prompt.focus();
  },

  /**
   * Prompts that a click asks.
   * @param {{ text: string, title?: string, ask: () => void }[]} offers
   */
  offer(offers) {
    this.chips.replaceChildren(
      ...offers.map(({ text, title, ask }) => {
        const chip = make('button', 'chip');
        chip.type = 'button';
        if (title) chip.append(make('b', '', title), ' ');
        chip.append(text);
        chip.dir = 'auto';
        chip.addEventListener('click', ask);
        return chip;
      }),
    );
    this.chips.hidden = !offers.length;
  },

  /** @param {string} [text] what is being edited; nothing any more */
  edit(text) {
    this.editing.hidden = text === undefined;
    setText(find('span', this.editing), text ?? '');
  },
};

composer.prompt.addEventListener('input', () => composer.grow());
composer.prompt.addEventListener('keydown', (event) => {
  // Enter also ends a word that is being composed, as in Chinese or Japanese.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.form.requestSubmit();
});
find('.down').addEventListener('click', () => {
  find('.closer').scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth' });
});
new ResizeObserver(() => composer.grow()).observe(composer.form);
