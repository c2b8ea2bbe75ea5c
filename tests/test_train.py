"""Training: corruption, losses, batches, optimiser, and runs that survive being cut."""

import json
import random
import re
import shutil
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from folders import save_folder, save_models
from sight import block_causal_ends
from torch.utils.data import DataLoader

from d2f.catalogue.pairs import model_folder
from d2f.checkpoints.load import load_model
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig
from d2f.tasks import TALK, TASKS, draw, split_of
from d2f.tokenizer import Tokenizer
from d2f.train import __main__ as trainer
from d2f.train import average
from d2f.train.average import mean_weights
from d2f.train.card import render
from d2f.train.data import (
    NO_LOSS,
    NO_WINDOW,
    Example,
    Place,
    Row,
    Stream,
    chunk_examples,
    collate,
    example,
)
from d2f.train.drills import drill
from d2f.train.loop import Corruption, Run, embedded_task, schedule
from d2f.train.losses import data_loss, distillation_loss, divergence, target_logits
from d2f.train.muon import orthogonalise
from d2f.train.noise import Noise, causal_row, label_weights
from d2f.train.recipes import MIXTURES, PRECISIONS, RECIPES, SHAPE, Recipe
from d2f.train.start import build
from d2f.train.vocabulary import corpus, grow_tokenizer, more_merges, old_pieces, train_tokenizer

MASK, PAD = 1, 0
EXAMPLE = Example(prompt=[10, 11, 12], answer=[20, 21, 22, 23, 24, 4])
NOISE = Noise(mask_id=MASK, pad_id=PAD, block_size=4, max_window=3, max_length=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "mini-ar"
    train_tokenizer(path, corpus(40, 0, TASKS), 1536)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder)


def tiny(seed: int = 0, *, shift: bool = True) -> Transformer:
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_length=64,
        logit_shift=shift,
        mask_id=MASK,
    )
    return Transformer(config)


def block_windows(row):
    """(start, end, prefix) of every noisy window: indices into the row, and the context it sees."""
    firsts = sorted({w.first for w in row.windows if w != NO_WINDOW})
    return [(i, row.windows[i].window_end, row.ends[i]) for i in firsts]


def test_causal_row_predicts_the_answer_and_nothing_of_the_prompt():
    row = causal_row(EXAMPLE)
    assert row.ids == [10, 11, 12, 20, 21, 22, 23, 24, 4]
    assert row.labels == [NO_LOSS] * 3 + EXAMPLE.answer
    assert row.ends == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("seed", range(200))
def test_corruption_masks_answers_only_and_labels_what_it_masks(seed):
    row = NOISE.masked_row(EXAMPLE, random.Random(seed))
    assert row.ids[:3] == EXAMPLE.prompt
    assert row.labels[:3] == [NO_LOSS] * 3
    canvas = EXAMPLE.answer + [PAD] * 512
    for token, label, true in zip(row.ids[3:], row.labels[3:], canvas, strict=False):
        assert (token, label) in ((true, NO_LOSS), (MASK, true))
    assert any(label != NO_LOSS for label in row.labels)


def test_canvases_reach_a_length_of_512_and_a_quarter_of_them_show_padding_from_some_place_on():
    noise = replace(NOISE, max_length=1024)
    rows = [noise.masked_row(EXAMPLE, random.Random(seed)) for seed in range(400)]
    padded = [row for row in rows if len(row.ids) > 100]
    assert max(len(row.ids) for row in padded) > 500
    shown = [row for row in padded if row.ids[-1] == PAD and row.weights[-8:] == [0.0] * 8]
    assert 0.1 < len(shown) / len(padded) < 0.4


def test_half_of_the_canvases_are_as_decoding_block_by_block_leaves_them():
    def open_block(row: Row) -> bool:
        hidden = [label != NO_LOSS for label in row.labels[3:]]
        first = hidden.index(True)
        end = (first // NOISE.block_size + 1) * NOISE.block_size
        return first < len(EXAMPLE.answer) and all(hidden[end:])

    noise = replace(NOISE, max_length=1024)
    rows = [noise.masked_row(EXAMPLE, random.Random(seed)) for seed in range(400)]
    long = [row for row in rows if len(row.ids) > 40]
    assert 0.4 < sum(map(open_block, long)) / len(long) < 0.6


@pytest.mark.parametrize("seed", range(200))
def test_block_rows_are_clean_blocks_and_views_of_the_answer_cut_into_windows(seed):
    row = NOISE.block_row(EXAMPLE, random.Random(seed))
    windows = block_windows(row)
    clean = windows[0][0]
    canvas = EXAMPLE.prompt + EXAMPLE.answer + [PAD] * 8
    assert row.ids[:clean] == canvas[:clean]
    assert row.labels[:clean] == [NO_LOSS] * clean
    assert [start for start, _, _ in windows[1:]] == [end for _, end, _ in windows[:-1]]
    assert windows[-1][1] == len(row.ids) == len(row.labels) == len(row.ends) == len(row.windows)
    covered = []
    for start, end, prefix in windows:
        assert (prefix - 3) % 4 == (end - start) % 4 == 0 and 1 <= (end - start) // 4 <= 3
        assert prefix <= clean
        assert set(row.ends[start:end]) == {prefix}
        for i in range(start, end):
            true = canvas[prefix + i - start]
            assert (row.ids[i], row.labels[i]) in ((true, NO_LOSS), (MASK, true))
        for block in range(start, end, 4):
            assert any(label != NO_LOSS for label in row.labels[block : block + 4])
        covered += range(prefix, prefix + end - start)
    assert all(covered.count(i) == NOISE.views for i in range(3, 3 + len(EXAMPLE.answer)))


def test_block_rows_reach_full_masks_and_train_on_padding():
    rows = [NOISE.block_row(EXAMPLE, random.Random(seed)) for seed in range(100)]
    first_blocks = [row.labels[i : i + 4] for row in rows for i, _, at in block_windows(row)]
    assert [20, 21, 22, 23] in first_blocks
    assert any(PAD in row.labels for row in rows)


def test_mask_ratios_grow_from_block_to_block_on_average():
    long = Example(prompt=[10], answer=list(range(5, 37)))
    counts = [0, 0, 0]
    for seed in range(500):
        row = NOISE.block_row(long, random.Random(seed))
        for start, end, _ in block_windows(row):
            if end - start == 12:
                for i in range(3):
                    block = row.labels[start + 4 * i : start + 4 * i + 4]
                    counts[i] += sum(label != NO_LOSS for label in block)
    assert counts[0] < counts[1] < counts[2]


def test_a_label_weighs_less_the_more_is_masked_before_it():
    assert label_weights([NO_LOSS, 7, NO_LOSS, 8, 9]) == [0, 1, 0, 1 / 2, 1 / 3]
    row = NOISE.block_row(EXAMPLE, random.Random(2))
    for start, end, _ in block_windows(row):
        assert row.weights[start:end] == label_weights(row.labels[start:end])
        assert max(row.weights[start:end]) == 1


def test_the_loss_is_the_weighted_mean_of_the_labels():
    net = tiny()
    batch = collate([NOISE.block_row(EXAMPLE, random.Random(s)) for s in range(3)])
    logits = target_logits(net, batch).log_softmax(-1)
    labels, weights = batch.labels[batch.labels != NO_LOSS], batch.weights[batch.weights > 0]
    each = [-logits[i, label].item() for i, label in enumerate(labels)]
    expected = (
        sum(w * x for w, x in zip(weights.tolist(), each, strict=True)) / weights.sum().item()
    )
    assert data_loss(net, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("foresight", [True, False])
def test_windows_see_what_the_decoder_shows_them(shift, foresight):
    """Against the model's own forward over each window's prefix and blocks, one at a time."""
    net = tiny(shift=shift)
    row = NOISE.block_row(Example([10, 11, 12], list(range(5, 26))), random.Random(3))
    expected = []
    for start, end, prefix in block_windows(row):
        ids = torch.tensor([row.ids[:prefix] + row.ids[start:end]])
        ends = block_causal_ends(0, ids.shape[1], 3, 4, ids.shape[1])
        if foresight:
            ends[prefix:] = ids.shape[1]
        labelled = [i for i in range(start, end) if row.labels[i] != NO_LOSS]
        hidden = net(ids, ends)[0, [prefix + i - start - shift for i in labelled]]
        expected.append(net.logits(hidden))
    batch = collate([row, NOISE.block_row(EXAMPLE, random.Random(1))])
    found = target_logits(net, batch, foresight=foresight)
    expected = torch.cat(expected)
    assert len(expected) > 20
    torch.testing.assert_close(found[: len(expected)], expected)


def test_collate_pads_on_the_right_without_loss(monkeypatch):
    monkeypatch.setattr("d2f.train.data.ROUND", 1)
    long = Row([1, 2], [NO_LOSS, 2], [2, 2], [NO_WINDOW] * 2, [0.0, 0.5])
    batch = collate([long, Row([3], [3], [1], [NO_WINDOW], [1.0])])
    assert batch.ids.tolist() == [[1, 2], [3, 0]]
    assert batch.labels.tolist() == [[NO_LOSS, 2], [3, NO_LOSS]]
    assert batch.ends.tolist() == [[2, 2], [1, 1]]
    assert batch.weights.tolist() == [[0, 0.5], [1, 0]]
    assert batch.tokens == 3


def test_batches_have_few_lengths(tokenizer):
    shapes = {batch.ids.shape[1] for _, batch in islice(stream(tokenizer), 20)}
    assert not {length % 8 for length in shapes} - {0}


def test_padding_a_batch_leaves_logits_unchanged():
    net = tiny()
    rng = random.Random(0)
    short = NOISE.block_row(Example([10], [20, 4]), rng)
    long = NOISE.block_row(Example([10, 11, 12, 13], list(range(5, 30))), rng)
    alone = target_logits(net, collate([short]))
    together = target_logits(net, collate([short, long]))
    torch.testing.assert_close(together[: len(alone)], alone)


@pytest.mark.parametrize("shift", [True, False])
def test_labels_are_predicted_from_the_position_the_model_uses(shift):
    net = tiny(shift=shift)
    batch = collate([NOISE.masked_row(EXAMPLE, random.Random(1))])
    hidden = net(batch.ids, batch.ends)[0]
    wanted = [i - shift for i, label in enumerate(batch.labels[0].tolist()) if label != NO_LOSS]
    torch.testing.assert_close(target_logits(net, batch), net.logits(hidden[wanted]))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_divergence_matches_the_definition(direction):
    teacher, student = torch.randn(5, 7), torch.randn(5, 7)
    p, q = teacher.softmax(-1), student.softmax(-1)
    if direction == "reverse":
        p, q = q, p
    expected = (p * (p.log() - q.log())).sum(-1)
    torch.testing.assert_close(divergence(teacher, student, direction), expected)


def test_divergence_refuses_other_directions():
    with pytest.raises(ValueError, match="direction.*'sideways'"):
        divergence(torch.zeros(1, 2), torch.zeros(1, 2), "sideways")


def test_a_student_equal_to_its_teacher_has_no_divergence_where_views_coincide():
    net = tiny()
    one_block = collate([NOISE.masked_row(EXAMPLE, random.Random(0))])
    loss = distillation_loss(net, net, one_block, share=1.0, direction="forward")
    assert abs(loss.item()) < 1e-6
    windows = collate([NOISE.block_row(EXAMPLE, random.Random(s)) for s in range(20)])
    assert distillation_loss(net, net, windows, share=1.0, direction="forward").item() > 1e-4


def test_distillation_sends_no_gradient_to_the_teacher():
    teacher, student = tiny(0), tiny(1)
    batch = collate([NOISE.block_row(EXAMPLE, random.Random(0))])
    distillation_loss(teacher, student, batch, share=0.5, direction="forward").backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_without_a_teachers_share_distillation_is_the_data_loss():
    net = tiny()
    batch = collate([NOISE.block_row(EXAMPLE, random.Random(0))])
    mixed = distillation_loss(tiny(1), net, batch, share=0.0, direction="forward")
    assert mixed.item() == data_loss(net, batch).item()


def test_orthogonalise_levels_the_singular_values():
    for shape in ((20, 30), (30, 20), (16, 16)):
        torch.manual_seed(0)
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert 0.5 < values.min() and values.max() < 1.3


def test_chunks_are_reproducible_and_never_hold_test_problems(tokenizer):
    chunk = chunk_examples(3, 0, tokenizer, MIXTURES["mini"])
    assert chunk == chunk_examples(3, 0, tokenizer, MIXTURES["mini"])
    assert chunk != chunk_examples(3, 1, tokenizer, MIXTURES["mini"])
    held_out = {
        tuple(example(p, 0, tokenizer).prompt)
        for task in TASKS
        for p, _ in zip(draw(task, "test", 0), range(300), strict=False)
    }
    assert not held_out & {tuple(e.prompt) for e in chunk}


def test_drills_are_correct_and_answer_what_they_ask():
    rng = random.Random(0)
    for _ in range(500):
        prompt, answer = drill(rng)
        asked = prompt.removeprefix("Calculate ").removesuffix(".").split(", ")
        assert [line.partition(" = ")[0] for line in answer.split("\n")] == asked
        for line in answer.split("\n"):
            a, operator, b, _, result = line.split()
            by = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}
            assert int(result) == by.get(operator, int(a) / int(b))


def test_a_follow_up_turn_carries_the_conversation(tokenizer):
    problem = next(p for p in draw("gsm-mini", "train", 0) if len(p.turns) == 2)
    assert split_of(problem) == "train"
    text = tokenizer.decode(example(problem, 1, tokenizer).prompt)
    assert text == problem.turns[0].prompt + problem.turns[0].answer + problem.turns[1].prompt


def stream(tokenizer: Tokenizer, start: Place = Place()) -> Stream:  # noqa: B008
    noise = replace(NOISE, mask_id=tokenizer.mask_id, pad_id=tokenizer.pad_id, max_length=1024)
    rows = Corruption(noise, "blocks", 0.25)
    examples = partial(chunk_examples, 0, tokenizer=tokenizer, mixture=MIXTURES["talk"])
    return Stream(0, start, 2048, examples, rows)


def test_batches_hold_the_budget_and_every_example_once(tokenizer):
    seen = 0
    for place, batch in stream(tokenizer):
        assert batch.ids.numel() <= 2048
        seen += len(batch.lengths)
        if place.chunk == 1:
            break
    assert seen == 1024
    assert place == Place(1, 0)


def test_a_stream_goes_on_behind_any_batch_and_in_another_process(tokenizer):
    whole = list(islice(stream(tokenizer), 6))
    for done, (place, _) in enumerate(whole[:3], 1):
        (_, following), (_, wanted) = next(iter(stream(tokenizer, place))), whole[done]
        assert torch.equal(following.ids, wanted.ids)
        assert torch.equal(following.labels, wanted.labels)
    worker = DataLoader(stream(tokenizer), batch_size=None, num_workers=1)
    for (place, batch), (wanted_place, wanted) in zip(islice(worker, 3), whole, strict=False):
        assert place == wanted_place
        assert torch.equal(batch.ids, wanted.ids)


def test_a_share_of_the_rows_is_causal(tokenizer):
    noise = replace(NOISE, max_length=1024)
    for share, low, high in ((0.0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)):
        make = Corruption(noise, "blocks", share)
        rows = [make(EXAMPLE, random.Random(seed)) for seed in range(1000)]
        assert low <= sum(row == causal_row(EXAMPLE) for row in rows) <= high


@pytest.mark.parametrize("name", MIXTURES)
def test_the_shares_of_a_mixture_make_a_whole(name):
    assert sum(MIXTURES[name].values()) == pytest.approx(1)
    assert set(MIXTURES[name]) <= {"drills", *TASKS, *TALK}


# --- growth of the vocabulary


def test_more_merges_are_those_of_bpe():
    words = {("l", "o", "w"): 5, ("l", "o", "w", "er"): 2, ("n", "e", "w"): 6, ("w", "i"): 1}
    assert list(more_merges(words, 3)) == [("o", "w"), ("l", "ow"), ("n", "e")]
    assert list(more_merges({("a", "a", "a"): 2}, 5)) == [("a", "a"), ("aa", "a")]


@pytest.fixture(scope="module")
def grown(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("grown") / "talk-ar"
    grow_tokenizer(folder, path, corpus(40, 0, TALK), 1600)
    return path


def test_a_grown_vocabulary_only_joins_old_tokens(folder, grown):
    old, new = Tokenizer(folder), Tokenizer(grown)
    assert new.vocab_size == 1600
    assert (new.end_id, new.pad_id, new.mask_id) == (old.end_id, old.pad_id, old.mask_id)
    pieces = old_pieces(json.loads((grown / "tokenizer.json").read_text()), old.vocab_size)
    assert sorted(pieces) == list(range(old.vocab_size, 1600))
    texts = list(corpus(20, 1, TALK))
    for text in texts:
        ids = new.encode(text)
        assert new.decode(ids) == text
        assert [piece for i in ids for piece in pieces.get(i, [i])] == old.encode(text)
    assert sum(map(len, map(new.encode, texts))) < 0.95 * sum(map(len, map(old.encode, texts)))


def test_a_grown_model_starts_with_what_it_knew_and_new_words_between_their_pieces(
    folder, grown, tmp_path
):
    model = tmp_path / "old"
    save_folder(model, folder, [4], mask_id=1, logit_shift=True, seed=3)
    recipe = replace(RECIPES["talk-d2f"], init=str(model), vocab_size=1600)
    old = load_model(model).net
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "d2f.train.start.model_shape", lambda *_: replace(old.config, vocab_size=1600)
        )
        net = build(recipe, 1, grown)
    assert torch.equal(net.layers[0].self_attn.o_proj.weight, old.layers[0].self_attn.o_proj.weight)
    known = Tokenizer(model).vocab_size
    pieces = old_pieces(json.loads((grown / "tokenizer.json").read_text()), known)
    for table, before in ((net.embed_tokens, old.embed_tokens), (net.lm_head, old.lm_head)):
        assert torch.equal(table.weight[:known], before.weight[:known])
        for token, parts in pieces.items():
            torch.testing.assert_close(table.weight[token], before.weight[parts].mean(0))


SMALL = SHAPE | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 16,
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_that_was_cut_ends_with_the_weights_of_one_that_was_not(
    precision, tokenizer, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("d2f.train.recipes.SHAPE", SMALL)
    recipe = Recipe(
        objective="blocks", tokens=12_000, warmup=1000, precision=precision, causal_share=0.2
    )

    def run(name: str) -> Run:
        net = build(recipe, tokenizer.mask_id, folder)
        task = embedded_task(recipe, tokenizer, net)
        return Run(name, recipe, tmp_path / name, task)

    whole, cut = run("whole"), run("cut")
    whole.train()
    for place, batch in islice(cut._batches(), 3):
        cut._step(batch)
        cut.place = place
    cut.save()
    resumed = run("cut")
    assert (resumed.step, resumed.place) == (3, Place(0, 3))
    resumed.train()
    assert resumed.step == whole.step > 4
    for name, weight in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], weight), name


def test_short_rows_are_attended_by_plain_products_with_the_same_outcome(monkeypatch):
    net, batch = tiny(), collate([NOISE.block_row(EXAMPLE, random.Random(s)) for s in range(3)])
    plain = target_logits(net, batch)
    monkeypatch.setattr("d2f.train.losses.SHORT", 0)
    torch.testing.assert_close(target_logits(net, batch), plain)


def test_the_law_of_windows_is_that_of_decoding():
    """An untouched block ends its window; the shares are those the module tells."""
    noise = replace(NOISE, block_size=8, max_window=4)
    windows = [noise._window_mask(4, random.Random(seed)) for seed in range(2000)]
    blocks = [[w[i : i + 8] for i in range(0, len(w), 8)] for w in windows]
    assert all(any(block) for each in blocks for block in each)
    assert not any(all(block) for each in blocks for block in each[:-1])
    assert 0.62 < sum(len(each) == 1 for each in blocks) / 2000 < 0.75
    assert 0.5 < sum(all(each[0]) for each in blocks) / 2000 < 0.6


def run_trainer(tmp_path, folder, *options) -> int:
    return trainer.main(
        ["mini-ar", "--runs", str(tmp_path / "runs"), "--out", str(folder.parent)]
        + ["--batch-tokens", "1024", "--evaluate", "1", *options]
    )


def test_training_lowers_the_loss_and_resumes_where_it_stopped(
    tmp_path, folder, monkeypatch, capsys
):
    monkeypatch.setitem(trainer.RECIPES, "mini-ar", replace(RECIPES["mini-ar"], warmup=1000))
    monkeypatch.setattr("d2f.train.recipes.SHAPE", SMALL)
    assert run_trainer(tmp_path, folder, "--tokens", "20000") == 0
    assert run_trainer(tmp_path, folder, "--tokens", "40000") == 0
    log = [json.loads(x) for x in (tmp_path / "runs/mini-ar/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] - 1
    assert [entry["step"] for entry in log] == sorted({entry["step"] for entry in log})
    state = torch.load(tmp_path / "runs/mini-ar/checkpoint.pt", weights_only=True)
    assert state["tokens"] >= 40000
    model = load_model(folder)
    assert model.config.causal and model.config.hidden_size == 32
    assert run_trainer(tmp_path, folder, "--tokens", "40000", "--learning-rate", "0.1") == 2
    assert "was made with other settings" in capsys.readouterr().err.splitlines()[-1]


def test_training_ends_before_weights_that_are_no_numbers_are_saved(
    tmp_path, folder, monkeypatch, capsys
):
    monkeypatch.setattr("d2f.train.recipes.SHAPE", SMALL)
    before = (folder / "model.safetensors").read_bytes()
    for tokens in ("1000", "4000"):  # one step, whose loss is still finite; several
        options = ("--tokens", tokens, "--warmup", "1", "--learning-rate", "1e38")
        assert run_trainer(tmp_path, folder, *options) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "became NaN or infinity: lower --learning-rate" in said
        assert said.startswith("d2f train: the ")
    assert (folder / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "runs/mini-ar/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        (
            "objective",
            "sideways",
            r"one of \['blocks', 'causal', 'masked', 'mixed'\], got 'sideways'",
        ),
        ("mixture", "all", r"one of \['mini', 'talk'\], got 'all'"),
        ("precision", "float16", r"one of \['bfloat16', 'float32'\], got 'float16'"),
        ("causal_share", "1.5", r"in \[0, 1\], got 1.5"),
        ("vocab_size", "0", "at least 1, got 0"),
        ("learning_rate", "nan", "a number above 0, got nan"),
        ("learning_rate", "1e999", "a number above 0, got inf"),
        ("decay", "0", "a number above 0, got 0.0"),
        ("weight_decay", "nan", r"in \[0, 1\], got nan"),
        ("teacher_share", "-1", r"in \[0, 1\], got -1.0"),
        ("batch_tokens", "0", "at least 1, got 0"),
    ],
)
def test_a_setting_of_training_that_cannot_be_is_one_line(option, value, rule, tmp_path, capsys):
    asked = ["mini-ar", "--out", str(tmp_path), f"--{option.replace('_', '-')}={value}"]
    assert trainer.main(asked) == 2
    assert re.fullmatch(f"d2f train: {option} must be {rule}\n", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    recipe = replace(RECIPES["mini-ar"], tokens=1000, warmup=100, decay=0.5, learning_rate=1.0)
    rates = [schedule(recipe, tokens) for tokens in (0, 49, 99, 500, 750, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_the_mean_of_two_models_ships_with_a_card_that_says_so(
    tmp_path: Path, tokenizer_folder: Path
):
    models, other = save_models(tmp_path / "models", tokenizer_folder), tmp_path / "other"
    stops = load_model(models / "mini-d2f").tokenizer.stop_ids
    mask_id = load_model(models / "mini-d2f").tokenizer.mask_id
    save_folder(other, tokenizer_folder, stops, mask_id=mask_id, logit_shift=True, seed=7)
    sources = [load_model(folder).net.state_dict() for folder in (models / "mini-d2f", other)]
    wanted = {name: (weight + sources[1][name]) / 2 for name, weight in sources[0].items()}
    average.main(
        ["mini-d2f", str(models / "mini-d2f"), str(other), "--out", str(models), "--evaluate", "1"]
    )
    mean = load_model(models / "mini-d2f").net.state_dict()
    assert mean.keys() == wanted.keys()
    for name, weight in mean.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-4)  # float16 on disk
    card = (models / "mini-d2f" / "README.md").read_text()
    assert "1. The mean of the weights after the 2 stages before." in card


def test_the_card_of_a_model_that_talks_tells_what_it_read_and_how_it_computed(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("d2f.train.recipes.SHAPE", SMALL)
    shutil.copytree(folder, tmp_path / "models" / "talk-ar")
    asked = ["talk-ar", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "models")]
    monkeypatch.setitem(trainer.RECIPES, "talk-ar", replace(RECIPES["talk-ar"], init=None))
    assert (
        trainer.main([*asked, "--tokens", "3000", "--vocab-size", "1536", "--evaluate", "1"]) == 0
    )
    card = (tmp_path / "models" / "talk-ar" / "README.md").read_text()
    assert "about two hundred things to talk about" in card
    assert "threads, bfloat16, torch" in card
    for task in (*TALK, *TASKS):
        assert f"| {task} | 1 | " in card
    assert "Decoder `ar`, greedy" in card


def test_cards_of_the_first_edition_say_what_that_knew():
    for name in ("mini-ar", "mini-d2f", "mini-dllm"):
        facts = json.loads((model_folder(name) / "training.json").read_text())
        assert "It knows the grammars of `d2f.tasks` and nothing else." in render(facts)
        assert "threads, float32, torch" in render(facts)


def test_a_mean_needs_models_of_one_shape():
    with pytest.raises(ValueError, match="two models or more, got 1"):
        mean_weights([{"a": torch.zeros(2)}])
    with pytest.raises(ValueError, match="differ in shape"):
        mean_weights([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])
