// @ts-check
// ---- chats in the browser -----------------------------------------------------------------
//
// Each chat is a value of localStorage of its own, so that two windows do not write over each
// other's. The server keeps none. Where a browser keeps nothing, chats live as long as the page.

const CHAT_KEY = 'd2f-chat-';
const OPEN_KEY = 'd2f-open'; // the chat that was open last

const chats = {
  /** @type {Map<string, Chat>} */
  fleeting: new Map(),
  kept: true,

  /** @returns {Chat[]} the latest first */
  all() {
    const found = keys().flatMap((key) => readChat(key) ?? []);
    const known = new Map([...this.fleeting.values(), ...found].map((chat) => [chat.id, chat]));
    return [...known.values()].sort((one, other) => other.at - one.at);
  },

  /** @param {Chat} chat */
  write(chat) {
    chat.at = Date.now();
    const text = JSON.stringify(chat);
    while (!put(CHAT_KEY + chat.id, text)) {
      const oldest = this.all()
        .filter(({ id }) => id !== chat.id && !this.fleeting.has(id))
        .pop();
      if (!oldest) {
        this.kept = false;
        this.fleeting.set(chat.id, chat);
        return;
      }
      this.remove(oldest.id);
      note(`This browser has no more room: the chat “${titleOf(oldest)}” was deleted.`);
    }
    put(OPEN_KEY, chat.id);
  },

  /** @param {string} id */
  remove(id) {
    this.fleeting.delete(id);
    drop(CHAT_KEY + id);
  },

  // The chat that was open last, if it is still there.
  last() {
    const id = get(OPEN_KEY);
    return id === null ? null : readChat(CHAT_KEY + id);
  },

  /** @param {string} [id] none: none is open any more */
  open(id) {
    if (id) put(OPEN_KEY, id);
    else drop(OPEN_KEY);
  },
};

/** @param {Chat} chat */
const titleOf = ({ turns }) => turns[0].prompt.slice(0, 80);

const newId = () => Math.random().toString(36).slice(2, 12);

/**
 * What a key holds, if it is a chat: anybody's script on this address may have written it.
 * @param {string} key
 * @returns {Chat|null}
 */
function readChat(key) {
  try {
    const chat = JSON.parse(get(key) ?? 'null');
    const whole =
      typeof chat.id === 'string' &&
      typeof chat.pair === 'string' &&
      typeof chat.at === 'number' &&
      Array.isArray(chat.turns) &&
      chat.turns.length > 0 &&
      chat.turns.every(isTurn);
    return whole ? chat : null;
  } catch {
    return null;
  }
}

/** @param {any} turn */
function isTurn(turn) {
  return (
    typeof turn.prompt === 'string' &&
    turn.answers.length === 2 &&
    turn.answers.every((/** @type {any} */ text) => typeof text === 'string') &&
    turn.figures.length === 2 &&
    turn.figures.every((/** @type {any} */ each) =>
      [each.tps, each.tpf, each.seconds].every(Number.isFinite),
    ) &&
    typeof turn.link === 'object' &&
    turn.link !== null
  );
}

// A browser may refuse its storage, or have no room: then there is nothing, or nothing is put.

/** @returns {string[]} */
function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(CHAT_KEY));
  } catch {
    return [];
  }
}

/** @param {string} key */
function get(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} text */
function put(key, text) {
  try {
    localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} key */
function drop(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // It was not kept there either.
  }
}
