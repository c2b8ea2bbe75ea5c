// @ts-check
// Small helpers of all scripts: elements, texts, the clipboard.
//
// First of the scripts that app/page/components.py joins into one. Gradio runs that once with
// `element`, `props`, `trigger` and `watch`. Whatever a model wrote is set with textContent only.

/**
 * An element of the board's own markup, which has it.
 * @template {Element} [T=HTMLElement]
 * @param {string} selector
 * @param {ParentNode} from
 * @returns {T}
 */
const find = (selector, from = root) => /** @type {T} */ (from.querySelector(selector));
/** @type {HTMLElement} */
const root = find('.board', element);
const SVG = 'http://www.w3.org/2000/svg';

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 */
function make(tag, className = '', text = '') {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** @param {Element} node @param {string} text */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * What the chat around the board does when something happens on it; an exported race has none.
 * @type {Hooks}
 */
const hooks = {
  opened: () => false,
  begun() {},
  ended() {},
  settled() {},
  halted() {},
  failed() {},
  busy() {},
  fill() {},
  link() {},
  rendered: (text) => [document.createTextNode(text)],
};

/**
 * A turn of a conversation in one line, which opens.
 * @param {string} prompt
 * @param {string} told beside it
 * @param {() => Node[]} body what is in it, made when it is first opened
 */
function folded(prompt, told, body) {
  const turn = make('details', 'turn');
  const line = make('summary');
  const words = make('span', 'turn-prompt', prompt);
  words.dir = 'auto';
  line.append(words, make('span', 'turn-told', told));
  turn.append(line);
  turn.addEventListener('toggle', () => turn.append(...body()), { once: true });
  return turn;
}

// Python without marks around it, and rows of digits: their columns stand under each other.
const MONO =
  /^(def|class|import|from|for|while|if|return|print)\b.*[:(]|^( {2,}|\t)\S|^[\d_]{3,}$/m;

/**
 * What was asked and what was answered, under each other.
 * @param {string} prompt
 * @param {string} text
 */
function said(prompt, text) {
  const asked = make('p', 'said user', prompt);
  const answer = make('div', 'said model');
  asked.dir = answer.dir = 'auto';
  answer.append(...hooks.rendered(text));
  answer.classList.toggle('mono', MONO.test(text));
  return [asked, answer];
}

// ---- formatting ---------------------------------------------------------------------------

/** @param {number} value */
const rate = (value) => value.toFixed(value >= 100 ? 0 : 1);
/** @type {Record<string, (value: number) => string>} */
const FIGURES = {
  tps: rate,
  tokens: String,
  forwards: String,
  tpf: (value) => value.toFixed(2),
  seconds: (value) => value.toFixed(value < 10 ? 3 : 1),
};

/** @param {string} text */
function visible(text) {
  const trimmed = text.trim();
  return trimmed || (text.includes('\n') ? '⏎' : '␣');
}

/**
 * The clipboard is closed to pages that did not come over https or from this machine; `shown` says
 * the text itself where it must not be lost.
 * @param {string} text
 * @param {string} what
 */
async function copy(text, what, shown = '') {
  try {
    await navigator.clipboard.writeText(text);
    note(`${what} is on the clipboard. ${shown}`);
  } catch {
    note(`The browser did not let this page use the clipboard. ${shown}`);
  }
}
