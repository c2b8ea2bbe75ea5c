"""A D2F adapter of any diffusion model, against slow and independent arithmetic."""

import json
import random
import statistics
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from originals import dream_json, llada_json, llada_state, rounded, write_folder
from tiny import as_transformers, network
from torch import Tensor
from torch.func import functional_call

from d2f import load_model
from d2f.checkpoints.weight_names import LLADA, TRANSFORMERS
from d2f.errors import InvalidInput
from d2f.nn.transformer import Transformer
from d2f.tokenizer import Tokenizer
from d2f.train.adapter import Adapter
from d2f.train.alignment import alignment_loss
from d2f.train.chats import read_chats
from d2f.train.data import NO_LOSS, Example, collate
from d2f.train.distil import main
from d2f.train.laws import LAWS, WholeAnswer
from d2f.train.loop import Run
from d2f.train.losses import distillation_loss

MASK = 1
EXAMPLES = [
    Example([40, 41, 42], [50, 51, 52, 53, 54, 55, 56, 4]),
    Example([43, 44, 45, 46, 47], [60, 61, 62, 4]),
]
LAYOUTS = {"llada": LLADA, "dream": TRANSFORMERS}
PATHS = {  # of a product, in transformers' own class
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "attn_out": "self_attn.o_proj",
}


def base(kind: str) -> Transformer:
    """A tiny network of LLaDA's kind, or of Dream's: logit shift and biases."""
    dream = kind == "dream"
    return network(300, mask_id=MASK, logit_shift=dream, qkv_bias=dream, sharpness=1)


def adapted(kind: str) -> Adapter:
    """With matrices that do something."""
    net, layout = base(kind), LAYOUTS[kind]
    targets = ["q_proj", "k_proj", "v_proj", "attn_out" if kind == "llada" else "o_proj"]
    adapter = Adapter(net, layout, targets, rank=3, alpha=6, dropout=0.0, base="tiny")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for matrix in adapter.state().values():
            matrix.normal_(0, 0.1, generator=generator)
    return adapter


def slow_loss(
    kind: str, matrices: dict[str, Tensor], rows: list[Any], share: float, direction: str, size: int
) -> Tensor:
    """The loss by definition: one example at a time, whole masks, transformers' class."""
    network_ = as_transformers(base(kind))
    weights = dict(network_.named_parameters())
    changed = dict(weights)
    for key in matrices:
        if ".lora_A." not in key:
            continue
        module = key.removesuffix(".lora_A.weight").split(".")
        layer = next(part for part in module if part.isdigit())
        name = f"model.layers.{layer}.{PATHS[module[-1]]}.weight"
        b = matrices[key.replace("lora_A", "lora_B")]
        changed[name] = weights[name] + 6 / 3 * (b @ matrices[key])
    shift = int(kind == "dream")
    terms = []
    for row, prompt in rows:
        length = len(row.ids)
        block = torch.tensor([0 if i < prompt else 1 + (i - prompt) // size for i in range(length)])
        ids = torch.tensor([row.ids])

        def logits(parameters: dict[str, Tensor], visible: Tensor) -> Tensor:
            kwargs = {"attention_mask": visible[None, None], "use_cache": False}
            return functional_call(network_, parameters, (ids,), kwargs).logits[0]  # noqa: B023

        student = logits(changed, block[None, :] <= block[:, None]).log_softmax(-1)
        with torch.no_grad():
            teacher = logits(weights, torch.ones(length, length, dtype=torch.bool)).log_softmax(-1)
        for place, label in enumerate(row.labels):
            if label == NO_LOSS:
                continue
            s, t = student[place - shift], teacher[place - shift]
            kl = (t.exp() * (t - s)).sum() if direction == "forward" else (s.exp() * (s - t)).sum()
            terms.append(row.weights[place] * (share * kl - (1 - share) * s[label]))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(
    ("law", "inverse", "share", "direction"),
    [
        ("released", True, 1.0, "forward"),
        ("paper", False, 1.0, "reverse"),
        ("paper", False, 0.3, "forward"),
        ("released", True, 0.0, "forward"),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_equal_a_slow_computation(
    kind: str,
    law: str,
    inverse: bool,
    share: float,
    direction: str,
    recompute: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("d2f.train.alignment.CHUNK", 3)
    make = WholeAnswer(law, MASK, 4, 4, 1, 100, inverse)
    rows = [(make(each, random.Random(5)), len(each.prompt)) for each in EXAMPLES]
    adapter = adapted(kind)
    how = {"share": share, "direction": direction, "recompute": recompute}
    loss = alignment_loss(adapter.net, collate([row for row, _ in rows]), adapter.off, **how)
    loss.backward()
    free = {key: matrix.clone().requires_grad_() for key, matrix in adapter.state().items()}
    slow = slow_loss(kind, free, rows, share, direction, 4)
    slow.backward()
    torch.testing.assert_close(loss, slow, rtol=0, atol=1e-5)
    for published, ours in adapter.modules.items():
        for side in "AB":
            own = adapter.net.get_submodule(f"{ours}.lora_{side}.default").weight.grad
            expected = free[f"base_model.model.{published}.lora_{side}.weight"].grad
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_taking_products_apart_changes_no_number_and_off_is_the_base(kind: str) -> None:
    ids = torch.tensor([[40, 41, MASK, 43, MASK]])
    with torch.no_grad():
        before = base(kind)(ids, None)
        adapter = adapted(kind)
        with adapter.off():
            assert torch.equal(adapter.net(ids, None), before)
        assert not torch.allclose(adapter.net(ids, None), before, atol=1e-3)


def test_only_the_adapter_trains() -> None:
    adapter = adapted("llada")
    names = [n for n, p in adapter.net.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 4 * adapter.net.config.num_layers
    assert all(".lora_A." in name or ".lora_B." in name for name in names)


def test_a_target_that_the_base_has_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"targets must be among .*'attn_out'.* got 'o_proj'"):
        Adapter(base("llada"), LLADA, ["o_proj"], rank=2, alpha=2, dropout=0, base="tiny")


def folder_of(kind: str, folder: Path, tokenizer_folder: Path) -> Path:
    shift = kind == "dream"
    size = Tokenizer(tokenizer_folder).vocab_size
    net = rounded(network(size, mask_id=MASK, logit_shift=shift, qkv_bias=shift, max_length=512))
    if kind == "llada":
        return write_folder(folder, llada_state(net), llada_json(net), tokenizer_folder)
    state = dict(as_transformers(net).state_dict())
    return write_folder(folder, state, dream_json(net), tokenizer_folder)


def chats(path: Path, *lines: object) -> Path:
    path.write_text(
        "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
    )
    return path


PAIR = {"prompt": "Count.", "answer": "one two three"}
TALK = {
    "id": 7,
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Again"},
        {"role": "assistant", "content": "Hello again!"},
    ],
}


def run(base_: Path, data: Path, out: Path, *more: str) -> int:
    small = ("--rank", "2", "--alpha", "4", "--block-size", "4", "--batch-tokens", "256")
    rates = ("--learning-rate", "5e-3", "--warmup", "100", "--tokens", "3000")
    where = ("--base", str(base_), "--data", str(data), "--out", str(out))
    return main([*where, *small, *rates, *more])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_an_adapter_is_made_that_loads_here_and_in_peft(
    kind: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = folder_of(kind, tmp_path / "base", tokenizer_folder)
    data, out = chats(tmp_path / "chats.jsonl", PAIR, TALK), tmp_path / "adapter"
    assert run(folder, data, out, "--law", "released", "--tokens", "30000") == 0
    config = peft.LoraConfig.from_pretrained(str(out))
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (2, 4, str(folder))
    plain, merged = load_model(folder), load_model(folder, adapter=out)
    changed = [
        name
        for name, weight in plain.net.state_dict().items()
        if not torch.equal(weight, merged.net.state_dict()[name])
    ]
    assert changed == sorted(changed, key=changed.index)
    assert {name.split(".", 2)[2] for name in changed} == {
        "self_attn.qkv_proj.weight",
        "self_attn.o_proj.weight",
    }
    examples, _ = read_chats(data, plain.tokenizer, 500)
    rows = WholeAnswer("released", MASK, 4, 4, 1, 500, False)
    batch = collate([rows(each, random.Random(s)) for s in range(20) for each in examples])
    untaught, taught = (
        float(distillation_loss(plain.net, student, batch, 1.0, "forward"))
        for student in (plain.net, merged.net)
    )
    assert taught < 0.8 * untaught


@pytest.mark.parametrize("law", ["windows", "paper"])
def test_a_run_that_was_cut_goes_on_bit_for_bit(
    law: str, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("llada", tmp_path / "base", tokenizer_folder)
    data = chats(tmp_path / "chats.jsonl", PAIR, TALK)
    assert run(folder, data, tmp_path / "whole", "--law", law) == 0

    class Cut(Exception):
        pass

    step, done = Run._step, []

    def three(self: Run, batch: Any) -> float:
        if len(done) == 3:
            raise Cut
        done.append(batch)
        return step(self, batch)

    monkeypatch.setattr(Run, "_step", three)
    monkeypatch.setattr("d2f.train.loop.SAVE_EVERY", 0.0)
    with pytest.raises(Cut):
        run(folder, data, tmp_path / "cut", "--law", law)
    monkeypatch.undo()
    assert run(folder, data, tmp_path / "cut", "--law", law) == 0
    name = "adapter_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_does_not_go_on_with_other_chats(
    tmp_path: Path, tokenizer_folder: Path, capsys
) -> None:
    folder = folder_of("llada", tmp_path / "base", tokenizer_folder)
    assert run(folder, chats(tmp_path / "chats.jsonl", PAIR), tmp_path / "out") == 0
    assert run(folder, chats(tmp_path / "chats.jsonl", TALK), tmp_path / "out") == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_an_autoregressive_base_is_refused(tmp_path: Path, capsys) -> None:
    data = chats(tmp_path / "chats.jsonl", PAIR)
    assert run(Path("mini-ar"), data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "is an autoregressive model" in error and error.rstrip().count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rank", "0", "rank must be at least 1"),
        ("--dropout", "1", "dropout must be in [0, 1)"),
        ("--tokens", "0", "tokens must be at least 1"),
        ("--teacher-share", "2", "teacher_share must be in [0, 1]"),
        ("--padding", "-1", "padding must be at least 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_read(
    option: str, value: str, message: str, tmp_path: Path, capsys
) -> None:
    assert run(tmp_path / "none", tmp_path / "none", tmp_path / "out", option, value) == 2
    assert message in capsys.readouterr().err


# Laws of mask ratios.


def test_the_released_law_is_that_of_its_code_in_distribution() -> None:
    rng, drawn = random.Random(0), [LAWS["released"](8, random.Random(s)) for s in range(4000)]
    assert all(ratios == sorted(ratios) and ratios[-1] <= 0.7 + 1e-12 for ratios in drawn)
    # The code itself: p = U / 2 + 0.2, and U * (0.7 - p) / 7 more from block to block.
    expected = []
    for _ in range(4000):
        p = rng.random() / 2 + 0.2
        steps = [rng.random() * (0.7 - p) / 7 for _ in range(7)]
        expected.append([p + sum(steps[:i]) for i in range(8)])
    for place in range(8):
        ours = sorted(each[place] for each in drawn)
        theirs = sorted(each[place] for each in expected)
        # Kolmogorov-Smirnov's statistic by quantiles; 0.05 is beyond chance at this many.
        gaps = [abs(a - b) for a, b in zip(ours[50::100], theirs[50::100], strict=True)]
        assert max(gaps) < 0.025
    assert statistics.mean(each[-1] for each in drawn) == pytest.approx(0.575, abs=0.01)
    assert LAWS["released"](1, random.Random(1))[0] <= 0.7


def test_the_papers_law_grows_between_its_bounds() -> None:
    drawn = [LAWS["paper"](5, random.Random(s)) for s in range(2000)]
    assert all(r == sorted(r) and 0.3 <= r[0] and r[-1] <= 0.7 for r in drawn)
    # Of five sorted draws the k-th lies at k / 6 of the range on average.
    for place in range(5):
        mean = statistics.mean(each[place] for each in drawn)
        assert mean == pytest.approx(0.3 + 0.4 * (place + 1) / 6, abs=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_answer_is_one_window_that_the_teacher_sees_from_the_prompt_on(seed: int) -> None:
    row = WholeAnswer("paper", MASK, 4, 4, 1, 100, False)(EXAMPLES[0], random.Random(seed))
    assert len(row.ids) == 3 + 12
    assert row.ids[:3] == EXAMPLES[0].prompt and row.labels[:3] == [NO_LOSS] * 3
    canvas = EXAMPLES[0].answer + [4] * 4
    for token, label, true in zip(row.ids[3:], row.labels[3:], canvas, strict=True):
        assert (token, label) in ((true, NO_LOSS), (MASK, true))
    assert {window[2] for window in row.windows} == {15}
    assert [window[1] for window in row.windows[3:]] == [7] * 4 + [11] * 4 + [15] * 4


def test_an_answer_longer_than_the_context_ends_with_it() -> None:
    row = WholeAnswer("paper", MASK, 4, 4, 5, 9, False)(EXAMPLES[0], random.Random(0))
    assert len(row.ids) == 9


# Chats of a file.


def test_every_answer_of_a_chat_is_an_example(tmp_path: Path, tokenizer: Tokenizer) -> None:
    examples, skipped = read_chats(chats(tmp_path / "a.jsonl", PAIR, "", TALK), tokenizer, 500)
    assert skipped.told() == []
    texts = [tokenizer.decode(each.answer) for each in examples]
    assert texts == ["one two three", "Hello!", "Hello again!"]
    assert all(each.answer[-1] == tokenizer.end_id for each in examples)
    assert examples[2].prompt == tokenizer.encode_chat(TALK["messages"][:4])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_are_read(encoding: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "a.jsonl"
    pair = {"prompt": "¿Qué?", "answer": "a\u2028b 🙂"}
    path.write_bytes((json.dumps(pair, ensure_ascii=False) + "\r\n").encode(encoding))
    [example], _ = read_chats(path, tokenizer, 500)
    assert tokenizer.decode(example.answer) == "a\nb 🙂"


def test_lines_that_cannot_be_used_are_counted_and_named(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    wrong_role = {"messages": [{"role": "bot", "content": "x"}, {"role": "user", "content": "y"}]}
    silent = {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}
    lines = (
        *('{"prompt": "cut', "[1, 2]", PAIR, {"prompt": "x"}, {"prompt": "x", "answer": ""}),
        *(wrong_role, silent, PAIR | {"answer": "long " * 600}, '{"prompt": "again', "nothing"),
        {"prompt": "x", "answer": "<|end|>"},
    )
    examples, skipped = read_chats(chats(tmp_path / "a.jsonl", *lines), tokenizer, 500)
    assert len(examples) == 1
    told = skipped.told()
    assert told[0] == "3 skipped: no JSON (line 1, 9, 10)"
    rest = "\n".join(told[1:])
    for number in (2, 4, 5, 6, 7, 8, 11):
        assert f"(line {number})" in rest
    assert "longer than 500 tokens (line 8)" in rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"no\nno\n", "2 skipped: no JSON"),
        (b"\xff\xfe\xfa", "no text in UTF-16"),
    ],
)
def test_a_file_without_a_chat_is_refused(
    content: bytes, message: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_chats(path, tokenizer, 500)
