// @ts-check
// Small helpers of all scripts: elements, texts, the clipboard.
//
// First of the scripts that app/components.py joins into one. Gradio runs that once with `element`,
// `props` and `watch`. Whatever a model wrote is set with textContent only.

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
