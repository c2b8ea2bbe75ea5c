// @ts-check
// ---- answers as Markdown ------------------------------------------------------------------
//
// markdown-it makes HTML of Markdown and shows HTML in it as the text it is; DOMPurify then lets
// nothing through but a few plain elements. Neither pictures nor anything else that a browser would
// fetch: an answer reaches no other machine. Both are served beside the page; until they are there,
// and where they do not load, answers are plain text.

const LIBRARIES = ['markdown-it.min.js', 'purify.min.js'];
const PLAIN = {
  ALLOWED_TAGS: [
    ...['p', 'br', 'hr', 'em', 'strong', 's', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a'],
    ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
  ],
  ALLOWED_ATTR: ['href', 'class', 'start'],
  RETURN_DOM_FRAGMENT: true,
};
// A line that only Markdown begins so, or a word marked in it. Python's names and sums are neither.
const MARKED =
  /^ {0,3}(```|~~~|#{1,6} |[-*+] |\d+[.)] |> |\|.*\|)|\*\*\S.*?\*\*|`[^`\n]+`|\]\(https?:/m;

const markdown = {
  /** @type {MarkdownIt|null} */
  maker: null,

  async load() {
    const root = window.gradio_config?.root ?? '';
    try {
      await Promise.all(LIBRARIES.map((name) => script(`${root}/libraries/${name}`)));
    } catch (error) {
      console.error(error);
      return;
    }
    this.maker = window.markdownit?.({ breaks: true, linkify: false }).disable(['image']) ?? null;
  },

  /** @param {string} text */
  nodes(text) {
    if (!this.maker || !window.DOMPurify || !MARKED.test(text)) {
      return [document.createTextNode(text)];
    }
    const parts = window.DOMPurify.sanitize(this.maker.render(text.trim()), PLAIN);
    for (const link of parts.querySelectorAll('a')) {
      link.target = '_blank';
      link.rel = 'noopener noreferrer nofollow';
    }
    for (const block of parts.querySelectorAll('pre')) this.code(block);
    for (const table of parts.querySelectorAll('table')) {
      const frame = make('div', 'wide');
      table.replaceWith(frame);
      frame.append(table);
    }
    const whole = make('div', 'markdown');
    whole.append(parts);
    return [whole];
  },

  /**
   * Puts a block of code into a frame from which it can be copied.
   * @param {HTMLPreElement} block
   */
  code(block) {
    const frame = make('div', 'code');
    const bar = make('div', 'code-bar');
    const name = /^language-([\w+#-]{1,20})/.exec(
      block.querySelector('code')?.className ?? '',
    )?.[1];
    const button = make('button', 'act', 'Copy code');
    button.type = 'button';
    button.addEventListener('click', () => copy(block.textContent ?? '', 'The code'));
    bar.append(make('span', '', name ?? 'code'), button);
    block.tabIndex = 0; // it may be wider than its place
    block.replaceWith(frame);
    frame.append(bar, block);
  },
};

/** @param {string} source */
function script(source) {
  const node = make('script');
  node.src = source;
  return new Promise((loaded, failed) => {
    node.addEventListener('load', loaded);
    node.addEventListener('error', () => failed(new Error(`${source} does not load`)));
    document.head.append(node);
  });
}

hooks.rendered = (text) => markdown.nodes(text);
markdown.load();
