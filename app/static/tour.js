// @ts-check
// ---- the guided tour ----------------------------------------------------------------------
//
// A card beside the board that points at one thing after the other. A race that is there already
// is wound to a moment at which the thing can be seen; one that is being computed is left alone.

const STOPS = [
  {
    at: 0.08,
    show: '.lane[data-lane="0"] .grid',
    title: 'Masks',
    text:
      'A cell is a token. The answer begins as masks, the dotted cells. One forward of D2F guesses ' +
      'all masked tokens in sight at once, and commits those it is sure of: more likely than tau_conf.',
  },
  {
    at: 0.3,
    show: '.lane[data-lane="0"] .grid',
    title: 'Blocks',
    text:
      'A frame is a block. Inside it tokens see each other both ways; other blocks only if they ' +
      'come before. So a block can begin while the ones before it still have masks: several are ' +
      'refined together, the later ones on the guesses of the earlier.',
  },
  {
    at: 0.6,
    show: '.lane[data-lane="0"] .grid',
    title: 'KV cache',
    text:
      'Nothing after a block can change it. Once its last mask is gone, its keys and values are ' +
      'final, and no forward computes them again: the frame fills. Usual diffusion models look ' +
      'both ways over the whole text, and can keep nothing.',
  },
  {
    at: 0.6,
    show: '.lane[data-lane="1"] .grid',
    title: 'One after the other',
    text:
      'The autoregressive model keeps its keys and values as well, and decides one token a forward, ' +
      'from left to right. The embedded one has the same size and the same engine.',
  },
  {
    at: 1,
    show: '.lane[data-lane="0"] .figures',
    title: 'Fewer forwards',
    text:
      'A forward over several blocks costs more than one over a single token. It pays when it ' +
      'decides enough of them: speed is tokens a forward over the time of a forward. Speed is ' +
      'worth as much as the answer is right, so read that as well.',
  },
  {
    at: 1,
    show: '.pipeline',
    title: 'The pipeline',
    text:
      'Bars that overlap are blocks refined at the same time. A tick is a token. Below, the ' +
      'autoregressive lane in the same scale.',
  },
  {
    at: 1,
    show: '.transport',
    title: 'Your turn',
    text:
      'Play it again, step by step if you like, slower or faster: the figures stay the measured ' +
      'ones. Then ask a question of your own.',
  },
];

const tour = {
  /** @type {HTMLDialogElement} */
  card: find('.tour'),
  /** @type {HTMLButtonElement} */
  back: find('.tour-back'),
  next: find('.tour-next'),
  stop: -1,
  /** @type {Element|null} */
  from: null, // where the keyboard was before

  start() {
    this.from = document.activeElement;
    this.card.show();
    this.go(0);
    this.next.focus();
  },

  /** @param {number} index */
  go(index) {
    if (index >= STOPS.length) return this.end();
    const { at, show, title, text } = STOPS[index];
    this.point();
    this.stop = index;
    if (duration() && !player.pending && (player.recorded || !player.live)) seek(at * duration());
    setText(find('.tour-title'), title);
    setText(find('.tour-text'), text);
    setText(find('.tour-count'), `${index + 1} of ${STOPS.length}`);
    setText(this.next, index + 1 < STOPS.length ? 'Next' : 'Done');
    this.back.disabled = index === 0;
    this.point(find(show));
  },

  /** @param {Element} [target] none: at nothing */
  point(target) {
    for (const old of root.querySelectorAll('.toured')) old.classList.remove('toured');
    if (!target) return;
    target.classList.add('toured');
    target.scrollIntoView({ block: 'center', behavior: calm.matches ? 'auto' : 'smooth' });
  },

  end() {
    this.point();
    this.card.close();
    if (this.from instanceof HTMLElement) this.from.focus({ preventScroll: true });
  },
};

tour.next.addEventListener('click', () => tour.go(tour.stop + 1));
tour.back.addEventListener('click', () => tour.go(tour.stop - 1));
find('.tour-end').addEventListener('click', () => tour.end());
tour.card.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') tour.end();
  else if (event.key === 'ArrowRight') tour.go(tour.stop + 1);
  else if (event.key !== 'ArrowLeft') return;
  else if (tour.stop) tour.go(tour.stop - 1);
  event.preventDefault();
});
document.addEventListener('click', ({ target }) => {
  if (target instanceof Element && target.closest('#tour')) tour.start();
});
