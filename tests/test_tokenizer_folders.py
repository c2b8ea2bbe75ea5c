"""Tokenizers and templates as strangers ship them: gaps in ids, damage, refusals, marks."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from tiny import as_transformers, network
from transformers import AutoModelForCausalLM, AutoTokenizer

from d2f import ARConfig, D2FConfig, VanillaConfig, generate, load_model
from d2f.checkpoints.save import save_model
from d2f.errors import InvalidInput, LoadError
from d2f.tokenizer import Tokenizer

END, TOP, ROWS = 4, 700, 720  # the end token's own id, one behind a gap, and a head beyond both
ASKED = [{"role": "user", "content": "2 + 3?"}]


@pytest.fixture
def folder(tokenizer_folder: Path, tmp_path: Path) -> Path:
    """A tokenizer to be spoilt."""
    return Path(copytree(tokenizer_folder, tmp_path / "model"))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))


def move_end(folder: Path) -> None:
    """The end token goes to the end of the table: ids up to it are nobody's, and neither is 4."""

    def edit(raw: dict[str, Any]) -> None:
        raw["model"]["vocab"]["<|end|>"] = TOP
        next(t for t in raw["added_tokens"] if t["content"] == "<|end|>")["id"] = TOP

    edit_json(folder / "tokenizer.json", edit)


def write_model(folder: Path, likes: dict[int, float], rows: int = ROWS, **shape: Any) -> None:
    """A model that finds the ids it likes the likelier everywhere, the more the higher."""
    net = network(rows, causal=True, logit_shift=True, **shape)
    # One number of the hidden state is the same everywhere, and the head reads it.
    net.embed_tokens.weight.data[:, 0] = 1
    for layer in net.layers:
        layer.self_attn.o_proj.weight.data[0] = 0
        layer.mlp.down_proj.weight.data[0] = 0
    for token, liking in likes.items():
        net.lm_head.weight.data[token, 0] += liking
    save_model(net, folder, [])


def test_ids_with_gaps_are_counted_to_the_highest(folder: Path) -> None:
    count = len(Tokenizer(folder).ids)
    move_end(folder)
    tokenizer = Tokenizer(folder)
    assert (tokenizer.vocab_size, len(tokenizer.ids), tokenizer.end_id) == (TOP + 1, count, TOP)
    assert tokenizer.stop_ids == (TOP,)
    assert len(AutoTokenizer.from_pretrained(folder)) == count < TOP


def test_an_end_token_behind_a_gap_ends_the_answer(folder: Path) -> None:
    move_end(folder)
    write_model(folder, {TOP: 1000})
    model = load_model(folder)
    ids = model.tokenizer.encode_chat(ASKED)
    assert TOP in ids
    trace = generate(model, ids, ARConfig(max_new_tokens=8))
    assert (trace.token_ids, trace.finish_reason) == ((TOP,), "stop")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert int(theirs(torch.tensor([ids])).logits[0, -1].argmax()) == TOP


@pytest.mark.parametrize("config", [ARConfig, D2FConfig, VanillaConfig])
def test_ids_that_are_no_token_are_never_chosen(config: Any, folder: Path) -> None:
    move_end(folder)
    diffuses = config is not ARConfig
    shape: dict[str, Any] = {"mask_id": 1} if diffuses else {}
    net_likes = {END: 3000, TOP - 1: 3000, TOP + 1: 2000, ROWS - 1: 2000, 1: 2500, TOP: 1000}
    write_model(folder, net_likes, **shape)
    path = folder / "config.json"
    edit_json(path, lambda raw: raw["d2f"].update(causal=not diffuses))
    model = load_model(folder)
    trace = generate(model, model.tokenizer.encode_chat(ASKED), config(max_new_tokens=8))
    assert set(trace.canvas.values()) == {TOP}


def add_tokens(folder: Path, *texts: str) -> int:
    """Special tokens at the end; the highest id and one."""
    hf = AutoTokenizer.from_pretrained(folder)
    hf.add_tokens(list(texts), special_tokens=True)
    hf.save_pretrained(folder)
    return Tokenizer(folder).vocab_size


def test_a_tokenizer_larger_than_its_model_is_refused_with_both_numbers(folder: Path) -> None:
    rows = Tokenizer(folder).vocab_size
    write_model(folder, {}, rows)
    add_tokens(folder, "<|pad|>", "<|asks|>")
    template = folder / "chat_template.jinja"
    # The token's text stands nowhere in the template.
    template.write_text("<|{{ 'asks' }}|>" + template.read_text())
    message = f"needs {rows + 2} rows and the model has {rows}: tokens were added"
    with pytest.raises(LoadError, match=message):
        load_model(folder)


def test_special_tokens_that_nothing_becomes_need_no_row(folder: Path) -> None:
    """Padding added for training, as many finetunes have it."""
    rows = Tokenizer(folder).vocab_size
    write_model(folder, {END: 1000}, rows)
    top = add_tokens(folder, "<|train-pad|>")
    assert top == rows + 1
    model = load_model(folder)
    ids = model.tokenizer.encode_chat(ASKED)
    assert generate(model, ids, ARConfig(max_new_tokens=4)).token_ids == (END,)
    with pytest.raises(InvalidInput, match=f"must be token ids of the model, got {rows}"):
        generate(model, [*ids, rows], ARConfig(max_new_tokens=4))


def test_words_above_the_rows_are_refused(folder: Path) -> None:
    rows = Tokenizer(folder).vocab_size
    write_model(folder, {}, rows - 1)
    with pytest.raises(LoadError, match=f"needs {rows} rows and the model has {rows - 1}"):
        load_model(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_a_tokenizer_may_begin_with_a_mark(encoding: str, folder: Path) -> None:
    write_model(folder, {})
    expected = load_model(folder)
    for path in [*folder.glob("*.json"), *folder.glob("*.jinja")]:
        path.write_bytes(path.read_text().encode(encoding))
    model = load_model(folder)
    assert model.config == expected.config
    assert model.tokenizer.ids == expected.tokenizer.ids
    assert model.tokenizer.encode_chat(ASKED) == expected.tokenizer.encode_chat(ASKED)


TEMPLATES = {
    "{{ raise_exception('users and assistants\n take turns') }}": "users and assistants take turns",
    "{{ nothing.there }}": "'nothing' is undefined",
    "{{ messages | backwards }}": "No filter named 'backwards'.",
    "{% for m in messages %}": "Unexpected end of template.",
    "{{ messages.__class__.__mro__ }}": "access to attribute '__class__' of 'list' object",
    "{{ 1 / 0 }}": r"(ZeroDivisionError: division by zero)",
    "{{ messages + 1 }}": "(TypeError: can only concatenate list",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "(RecursionError: maximum recursion",
    "{{ range(1000000) }}": "(OverflowError: Range too big.",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_fails_refuses_the_chat(template: str, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = Tokenizer(folder)
    with pytest.raises(InvalidInput) as error:
        tokenizer.encode_chat(ASKED)
    told = str(error.value)
    assert TEMPLATES[template] in told
    assert told.startswith("the model's chat template refuses this chat") and "\n" not in told


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("hello", "a chat must be a list of at least one message, got 'hello'"),
        (ASKED[0], "a chat must be a list of at least one message, got {'role'"),
        ([], r"a chat must be a list of at least one message, got \[\]"),
        (["hello"], "a message must have role and content, got 'hello'"),
        ([{"role": "user"}], "content must be text, got None"),
        ([{"content": "hello"}], "role must be one of .* got None"),
        ([{"role": ["user"], "content": "hello"}], r"role must be one of .* got \['user'\]"),
        ([{"role": "user", "content": None}], "content must be text, got None"),
        ([{"role": "user", "content": 5}], "content must be text, got 5"),
        ([{"role": "user", "content": ["hello"]}], "content must be text or parts of text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content must be text or parts of"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content must be text, got None"),
        ([{"role": "user", "content": "a\ud83d"}], "text must be Unicode, and holds half of a"),
        ([{"role": "user", "content": [{"type": "text", "text": "<|end|>"}]}], "special token"),
    ],
)
def test_a_chat_of_another_shape_is_refused(chat: Any, message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match=message):
        tokenizer.encode_chat(chat)


def test_parts_of_text_are_one_content(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "2 +"}, {"type": "text", "text": " 3?"}]
    assert tokenizer.encode_chat([{"role": "user", "content": parts}]) == tokenizer.encode_chat(
        ASKED
    )
    split = "<|en", "d|>"  # no special token in either
    with pytest.raises(InvalidInput, match="must not contain the special token '<|end|>'"):
        content = [{"type": "text", "text": text} for text in split]
        tokenizer.encode_chat([{"role": "user", "content": content}])


@pytest.mark.parametrize("method", ["encode", "encode_raw"])
def test_text_that_is_none_is_refused(method: str, tokenizer: Tokenizer) -> None:
    for text, message in ((None, "must be text, got None"), ("\udc80", "half of a character")):
        with pytest.raises(InvalidInput, match=message):
            getattr(tokenizer, method)(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json is no valid JSON"),
        ("tokenizer.json", "[]", r"tokenizer\.json must hold an object, not \[\]"),
        ("tokenizer.json", "{}", "tokenizer in .* cannot be loaded"),
        ("tokenizer_config.json", "<html>", r"tokenizer_config\.json is no valid JSON"),
        ("tokenizer_config.json", '{"eos_token": 5}', "tokenizer in .* cannot be loaded"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}', "tokenizer in .* cannot be loaded"),
        ("special_tokens_map.json", "\x00", r"special_tokens_map\.json is no valid JSON"),
        ("chat_template.jinja", b"\xff\xfeX", r"chat_template\.jinja: it is no text in UTF-16"),
    ],
)
def test_a_damaged_tokenizer_is_told_in_one_line(
    name: str, content: str | bytes, message: str, folder: Path
) -> None:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    with pytest.raises(LoadError, match=message) as error:
        Tokenizer(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_what_transformers_raised_is_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError):
        Tokenizer(folder)
    assert caplog.text.count("Traceback") == 1
    assert "cannot be loaded" in caplog.text


def test_a_model_saved_by_transformers_with_these_tokens_loads(folder: Path) -> None:
    as_transformers(network(Tokenizer(folder).vocab_size)).save_pretrained(folder)
    assert load_model(folder).config.causal


def test_a_file_that_would_end_the_process_is_refused(folder: Path) -> None:
    """tokenizers cuts the prefix off merges that do not begin with it, and aborts."""
    edit_json(
        folder / "tokenizer.json", lambda raw: raw["model"].update(continuing_subword_prefix="4")
    )
    with pytest.raises(LoadError, match="a continuing_subword_prefix of merges is not supported"):
        Tokenizer(folder)


def test_a_panic_of_rust_is_no_crash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class derives from BaseException and has no name that can be imported."""

    def panic(*_: Any, **__: Any) -> None:
        raise type("PanicException", (BaseException,), {})("range end index out of range")

    tokenizer = Tokenizer(folder)
    monkeypatch.setattr(tokenizer, "_hf", type("Panicking", (), {"decode": panic})())
    for decode in (lambda: tokenizer.decode([5]), lambda: tokenizer.token_text(5)):
        with pytest.raises(LoadError, match=r"cannot decode its ids \(PanicException: range end"):
            decode()
