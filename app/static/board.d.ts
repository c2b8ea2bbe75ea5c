// What Gradio hands the board's script, and what the board keeps of a race. Not sent to a browser.

declare const element: HTMLElement;
declare const props: { value: string };
declare function watch(name: 'value', changed: () => void): void;

interface HTMLElement {
  lane?: Lane; // for whoever looks into the page: a console, a test
}

type RowState = 'waiting' | BlockState;
type Inks = Record<string, string>; // colours by name, and `font`
type Point = [time: number, speed: number];
type Shown = Pick<Step, 'time' | 'tokens' | 'forwards'>;

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
