"""Algorithm 2 of the D2F paper (arXiv 2508.09192), read slowly: no cache and no cleverness.

The oracle of the pipelined decoder's tests. It shares no line with ``d2f``: visibility is a whole
matrix, the network is transformers' own class run over the whole sequence at every
step, a block is a dict. Where the paper leaves a choice open, DESIGN section 4 decides: ratios
compare with >=, confidence with >; at most one block a step; stop tokens end the growth. With
another ``grid`` the prompt is cut into blocks as well, and the answer may begin inside of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel


@dataclass
class Run:
    """``steps``: a dict a forward. ``margin``: how narrowly the closest decision was taken.

    A margin below rounding error means another correct implementation may decide otherwise.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    margin: float = 1.0


def decode(
    network: PreTrainedModel,
    prompt: list[int],
    *,
    logit_shift: bool,
    mask_id: int,
    stop_ids: set[int],
    vocab_size: int,
    block_size: int,
    max_new_tokens: int,
    tau_add: float,
    tau_act: float,
    tau_conf: float,
    max_active_blocks: int | None = None,
    early_stop: bool = False,
    held: Mapping[int, int] | None = None,
    grid: str = "prompt",
) -> Run:
    length = len(prompt)
    # Tokens given by place in the answer: they are there when their block is born.
    given = {length + place: token for place, token in (held or {}).items()}
    # Blocks of the prompt, numbered up to 0: decoded from the start, their K/V not computed yet.
    blocks: dict[int, dict[str, Any]] = {}
    if grid == "prompt":
        cells = [list(range(length))]
    else:
        short = length % block_size if grid == "remainder" else 0
        cells = [list(range(short))] if short else []
        while (begun := sum(map(len, cells))) + block_size <= length:
            cells.append(list(range(begun, begun + block_size)))
    for number, cell in enumerate(reversed(cells)):
        tokens = {p: prompt[p] for p in cell}
        blocks[-number] = {"tokens": tokens, "fully": True, "cached": False}
    blocks = dict(sorted(blocks.items()))
    limit = length + max_new_tokens
    run = Run()

    def masked(b: int) -> list[int]:
        return [p for p, token in sorted(blocks[b]["tokens"].items()) if token is None]

    def ratio(b: int) -> float:
        """Of what the block generates; a block of the prompt, or none at all, is done."""
        size = sum(p >= length for p in blocks[b]["tokens"]) if b in blocks else 0
        return (size - len(masked(b))) / size if size else 1.0

    def stops() -> list[int]:
        born = {p: t for block in blocks.values() for p, t in block["tokens"].items()}
        answer = given | {p: token for p, token in born.items() if p >= length}
        return sorted(p for p, token in answer.items() if token in stop_ids)

    while True:
        # 1. Grow.
        added: list[int] = []
        while not added or not masked(added[-1]):
            last = max(blocks, default=0)
            next_start = max(blocks[last]["tokens"]) + 1 if blocks else 0
            unfinished = [b for b in blocks if masked(b)]
            in_flight = last - unfinished[0] + 1 if unfinished else 0
            room = max_active_blocks is None or in_flight < max_active_blocks
            over = bool(stops()) and stops()[0] < next_start
            ahead = set(range(max(next_start, length), min([limit, *stops()]))) - given.keys()
            if not ahead or over or ratio(last) < tau_add or not room:
                break
            added.append(last + 1)
            positions = range(next_start, min(next_start + block_size, limit))
            tokens = {p: prompt[p] if p < length else given.get(p) for p in positions}
            # Nothing before the first one is undecided.
            blocks[last + 1] = {"tokens": tokens, "fully": last == 0, "cached": False}
        # 2. Promote, for good.
        activated = []
        for b in sorted(blocks):
            if b + 1 in blocks and ratio(b) >= tau_act and not blocks[b + 1]["fully"]:
                blocks[b + 1]["fully"] = True
                if masked(b + 1):
                    activated.append(b + 1)
        # 3. Stop.
        if not any(masked(b) for b in blocks) and not added:
            run.steps[-1]["finish"] = "stop" if stops() else "length"
            return run
        # 4. Forward everything.
        logits = forward(network, blocks, mask_id)
        # 5. Whatever was finished before this forward, with nothing unfinished before it, is final.
        window_start = sum(len(block["tokens"]) for block in blocks.values() if block["cached"])
        window_end = max(blocks[max(blocks)]["tokens"]) + 1
        in_window = [b for b in sorted(blocks) if not blocks[b]["cached"]]
        cached = []
        for b in in_window:
            if masked(b):
                break
            blocks[b]["cached"] = True
            cached.append(b)
        # 6. Commit.
        committed: dict[int, tuple[int, float, bool]] = {}
        for b in in_window:
            choices: dict[int, tuple[int, float]] = {}
            for position in masked(b):
                row = logits[position - 1 if logit_shift else position].clone()
                row[mask_id] = -torch.inf
                row[vocab_size:] = -torch.inf
                if position < max(given, default=0):
                    row[[i for i in stop_ids if i < vocab_size]] = -torch.inf
                best = row.softmax(0).topk(2)
                choices[position] = (int(best.indices[0]), float(best.values[0]))
                if 0 < tau_conf < 1:
                    run.margin = min(run.margin, abs(float(best.values[0]) - tau_conf))
                run.margin = min(run.margin, float(best.values[0] - best.values[1]))
            sure = {p: choice for p, choice in choices.items() if choice[1] > tau_conf}
            for position, (token, confidence) in sure.items():
                committed[position] = (token, confidence, False)
            if choices and not sure and blocks[b]["fully"]:
                ranked = sorted(choices, key=lambda p: choices[p][1], reverse=True)  # noqa: B023
                committed[ranked[0]] = (*choices[ranked[0]], True)
                if len(ranked) > 1:
                    gap = choices[ranked[0]][1] - choices[ranked[1]][1]
                    run.margin = min(run.margin, gap)
        for position, (token, _, _) in committed.items():
            for block in blocks.values():
                if position in block["tokens"]:
                    block["tokens"][position] = token
        # 7. Record.
        run.steps.append(
            {
                "added": added,
                "activated": activated,
                "cached": cached,
                "cache_length": window_start + sum(len(blocks[b]["tokens"]) for b in cached),
                "window": (window_start, window_end),
                "committed": committed,
                "blocks": {
                    b: {
                        "start": max(min(blocks[b]["tokens"]), length),
                        "end": max(blocks[b]["tokens"]) + 1,
                        "masked": len(masked(b)),
                        "state": state(blocks[b]),
                    }
                    for b in in_window
                    if b > 0
                },
                "finish": None,
            }
        )
        # 8. Finish early.
        if early_stop and stops():
            first = stops()[0]
            blocks = {b: block for b, block in blocks.items() if min(block["tokens"]) <= first}
            decided = given | {p: t for b in blocks.values() for p, t in b["tokens"].items()}
            if all(decided.get(position) is not None for position in range(first)):
                run.steps[-1]["finish"] = "stop"
                return run


def state(block: dict[str, Any]) -> str:
    if block["cached"]:
        return "cached"
    if None not in block["tokens"].values():
        return "completed"
    return "fully_activated" if block["fully"] else "semi_activated"


def forward(
    network: PreTrainedModel, blocks: dict[int, dict[str, Any]], mask_id: int
) -> torch.Tensor:
    """(T, V) logits of all positions: a row sees its own block and the blocks before it."""
    tokens: dict[int, int] = {}
    block_of: dict[int, int] = {}
    for b, block in blocks.items():
        for position, token in block["tokens"].items():
            tokens[position] = mask_id if token is None else token
            block_of[position] = b
    length = len(tokens)
    assert sorted(tokens) == list(range(length))
    number = torch.tensor([block_of[position] for position in range(length)])
    visible = number[None, :] <= number[:, None]  # (row, key)
    with torch.inference_mode():
        return network(
            input_ids=torch.tensor([[tokens[p] for p in range(length)]]),
            attention_mask=visible[None, None],
            use_cache=False,
        ).logits[0]
