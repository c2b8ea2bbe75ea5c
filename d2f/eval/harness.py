"""Decoders as a model of the lm-evaluation-harness, and its scores of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from d2f.errors import InvalidInput
from d2f.eval.answers import Answer, Question
from d2f.tokenizer import Tokenizer

# Random draws behind the error of a score that is no mean.
DRAWS = 1000
# As the harness's own command line seeds the choice of examples.
SEED = 1234


class Decoders(LM):
    """A model of the harness: it answers questions, and compares no probabilities."""

    def __init__(
        self, tokenizer: Tokenizer, answer: Callable[[Sequence[Question]], Sequence[Answer]]
    ) -> None:
        super().__init__()
        self._tokenizer, self._answer = tokenizer, answer
        self.answers: list[Answer] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The texts of answers up to a stop sequence; ``answers`` keeps the rest of them."""
        seen: Counter[tuple[str, int, int]] = Counter()
        questions = []
        for request in requests:
            prompt, arguments = request.args
            place = (request.task_name, request.doc_id, request.idx)
            stops = arguments.get("until") or []
            stops = [stops] if isinstance(stops, str) else stops
            questions.append(
                Question(
                    task=request.task_name,
                    problem=request.doc_id,
                    repeat=seen[place],
                    prompt=prompt,
                    stops=tuple(stop for stop in stops if stop),
                )
            )
            seen[place] += 1
        self.answers += self._answer(questions)
        return [answer.text for answer in self.answers[-len(questions) :]]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the model's own template writes it."""
        return self._tokenizer.chat_text(chat_history, begun=not add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """Under which the harness would keep prompts; it keeps none here."""
        return type(self._tokenizer).__name__

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refused."""
        raise InvalidInput("these decoders tell no probabilities")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refused."""
        raise InvalidInput("these decoders tell no probabilities")


@dataclass(frozen=True)
class Scores:
    """What the harness makes of answers.

    Attributes:
        every: by task, each metric and filter with its mean and error.
        metric: the first of them, which ``right`` is of.
        right: by task and number of the problem.
    """

    every: dict[str, dict[str, float]]
    metric: str
    right: dict[tuple[str, int], float]


def scored(
    model: Decoders, tasks: Mapping[str, Any], limit: int | None, chat: bool, metric: str | None
) -> Scores:
    """Has the harness ask, filter and score.

    Args:
        metric: "METRIC,FILTER" of the headline; None: the first that the first task has.
    """
    for task in tasks.values():
        task.set_fewshot_seed(SEED)  # the same examples for every lane
    result = evaluate(
        model,
        {"tasks": dict(tasks), "groups": {}},
        limit=limit,
        bootstrap_iters=DRAWS,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        confirm_run_unsafe_code=True,  # asked before, and run in the sandbox
    )
    every = {task: _figures(result["results"][task]) for task in tasks}
    known = next(iter(every.values()))
    first = metric or next(iter(known))
    if first not in known:
        scores = ", ".join(key for key in known if "_stderr," not in key)
        raise InvalidInput(f"--metric: no {first!r} for {next(iter(every))}; it has {scores}")
    name, _, filter_name = first.partition(",")
    right = {
        (task, sample["doc_id"]): float(sample[name])
        for task in tasks
        for sample in result["samples"][task]
        if sample["filter"] == filter_name
    }
    return Scores(every, first, right)


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in result.items() if "," in key and value != "N/A"}
