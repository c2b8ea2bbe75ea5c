// @ts-check
// ---- drawers ------------------------------------------------------------------------------
//
// Settings, and the list of chats.

/** @type {Record<'settings'|'chats', HTMLDialogElement>} */
const drawers = { settings: find('.drawer.settings'), chats: find('.drawer.chats') };

const list = {
  /** @type {HTMLInputElement} */
  search: find('.search'),
  rows: find('.list'),

  draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = chats.all().filter((chat) => {
      const text = chat.turns.flatMap((turn) => [turn.prompt, ...turn.answers]).join('\n');
      return words.every((word) => text.toLowerCase().includes(word));
    });
    this.rows.replaceChildren(...found.map((chat) => this.row(chat)));
    const none = words.length ? 'No chat has these words.' : 'No chats yet.';
    const where = chats.kept
      ? 'Chats are kept in this browser only. Nothing of them stays on the server.'
      : 'This browser keeps nothing: chats end with this page.';
    setText(find('.kept'), found.length ? where : none);
  },

  /** @param {Chat} chat_ */
  row(chat_) {
    const row = make('li');
    const open = make('button', 'chat-title');
    const gone = make('button', 'act', 'Delete');
    const turns = count(chat_.turns.length, 'turn');
    const title = make('span', '', titleOf(chat_));
    title.dir = 'auto';
    open.type = gone.type = 'button';
    open.append(title, make('small', '', `${turns} · ${new Date(chat_.at).toLocaleString()}`));
    if (chat_.id === chat.current?.id) open.setAttribute('aria-current', 'true');
    gone.setAttribute('aria-label', `Delete chat ${titleOf(chat_)}`);
    open.addEventListener('click', () => {
      drawers.chats.close();
      chat.open(chat_);
    });
    gone.addEventListener('click', () => this.remove(chat_, row));
    row.append(open, gone);
    return row;
  },

  /**
   * A chat that was deleted can be had back as long as the list is open.
   * @param {Chat} chat_
   * @param {HTMLElement} row
   */
  remove(chat_, row) {
    chats.remove(chat_.id);
    if (chat_.id === chat.current?.id) chat.fresh();
    const undo = make('button', 'act', 'Undo');
    undo.type = 'button';
    undo.addEventListener('click', () => {
      chats.write(chat_);
      this.draw();
      this.search.focus();
    });
    row.replaceChildren(make('span', 'gone', `“${titleOf(chat_)}” is deleted.`), undo);
    undo.focus();
  },
};

for (const drawer of Object.values(drawers)) {
  find('.close', drawer).addEventListener('click', () => drawer.close());
  // A click beside it: on the dialog itself, which its content covers.
  drawer.addEventListener('click', ({ target }) => {
    if (target === drawer) drawer.close();
  });
}
find('.open-settings').addEventListener('click', () => {
  form.explain();
  drawers.settings.showModal();
});
find('.open-chats').addEventListener('click', () => {
  list.search.value = '';
  list.draw();
  drawers.chats.showModal();
});
list.search.addEventListener('input', () => list.draw());
