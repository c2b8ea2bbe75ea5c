// What Gradio hands the board's script, and what the board keeps of a race. Not sent to a browser.

declare const element: HTMLElement;
declare const props: { value: string; form: Form };
declare function trigger(name: 'ask', data: Asking): void;
declare function trigger(name: 'link', data: { link: string }): void;
declare function trigger(name: 'halt' | 'draw'): void;
declare function watch(name: 'value', changed: () => void): void;

interface HTMLElement {
  lane?: Lane; // for whoever looks into the page: a console, a test
}

interface Window {
  // Libraries of other projects, and what Gradio knows of the page.
  markdownit?: (options: object) => MarkdownIt;
  DOMPurify?: { sanitize(html: string, options: object): DocumentFragment };
  gradio_config?: { root?: string };
}

interface MarkdownIt {
  disable(rules: string[]): MarkdownIt;
  render(text: string): string;
}

// What the chat does when something happens on the board.
interface Hooks {
  opened(): boolean; // whether the page's first race is not wanted
  begun(start: Start): void;
  ended(end: End): void; // all is known of the race
  settled(): void; // all of it is shown
  halted(): void;
  failed(): void;
  busy(running: boolean): void;
  fill(message: Fill): void;
  link(fragment: string): void;
  rendered(text: string): Node[];
}

type Settings = Record<string, number | string | null>;

// What app/page/form.py tells of the form.
interface Form {
  pair: string;
  pairs: { name: string; title: string; settings: Settings; presets: Preset[] }[];
  refused: string[];
  settings: SettingText[];
  examples: { prompt: string; task: string }[];
}

// `choices`: all its values, where they are words; `rules`: of the commit, where it is for these only.
interface SettingText {
  name: string;
  label: string;
  text: string;
  choices: string[];
  rules: string[];
}

interface Preset {
  name: string;
  told: string;
  settings: Settings;
}

// What app/page/asking.py reads.
interface Asking {
  run: string;
  prompt: string;
  pair: string;
  settings: Settings;
  past: { pair: string; turns: { prompt: string; answers: string[] }[] } | null;
}

// A turn of a chat as the browser keeps it. `figures`: of each lane; `link`: the whole race.
interface Turn {
  prompt: string;
  answers: string[];
  figures: { tps: number; tpf: number; seconds: number }[];
  link: Link;
  next?: string;
}

interface Chat {
  id: string;
  pair: string;
  at: number; // when it was last written, in milliseconds since 1970
  turns: Turn[];
}

type RowState = 'waiting' | BlockState;
type Inks = Record<string, string>; // colours by name, and `font`
type Point = [time: number, speed: number];
type Shown = Pick<Step, 'time' | 'tokens' | 'forwards' | 'rejected'>;

interface Token {
  text: string;
  confidence: number;
  flags: number;
  step: number;
}

interface Cell {
  position: number;
  token: Token | null;
}

// The life of one row of the grid.
interface Span {
  born: number;
  states: [time: number, state: BlockState][];
  commits: number[];
}

// The same with its lane, for the pipeline view.
interface Row {
  lane: Lane;
  i: number;
  span: Span;
  block: number;
}

// How a cell looks.
interface Look {
  known?: boolean;
  now?: boolean;
  forced?: boolean;
  beyond?: boolean;
  cached?: boolean;
}

type Figures = Omit<
  Metrics,
  'ttft' | 'decode_tokens_per_second' | 'ms_per_forward' | 'finish_reason'
>;
