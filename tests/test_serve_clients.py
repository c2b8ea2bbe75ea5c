"""Requests as clients of the world send them, to a model that ships, with the exact answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from served import messages
from servers import serving

from d2f.serve.service import Options, load_app
from d2f.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
TASK = ROOT / "docs" / "lm_eval" / "d2f_mini.yaml"
MODEL = ROOT / "assets" / "models" / "mini-d2f"
CHAT = [{"role": "user", "content": "Solve 3x + 4 = 19."}]
LINES = [
    "Subtract 4 from both sides: 3x = 19 - 4 = 15.\n",
    "Divide both sides by 3: x = 15 / 3 = 5.\n",
    "#### 5",
]
ANSWER, PROMPT = "".join(LINES), "<|user|>Solve 3x + 4 = 19.<|end|><|assistant|>"
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(load_app(Options("mini-d2f"))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def answer(client: httpx.Client, path: str, body: dict[str, Any], stream: bool) -> tuple[str, str]:
    """Text and reason."""
    asked = {"model": "mini-d2f", **body} | ({"stream": True} if stream else {})
    response = client.post(path, json=asked)
    assert response.status_code == 200, response.text
    if not stream:
        (choice,) = response.json()["choices"]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        return text, choice["finish_reason"]
    *chunks, done = [data for _, data in messages(response)]
    assert done is True
    choices = [chunk["choices"][0] for chunk in chunks]
    texts = [each.get("text") or each.get("delta", {}).get("content", "") for each in choices]
    return "".join(texts), choices[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 64, "temperature": 0, "stop": ["Question:"], "seed": 1234},
        {"stop": "\n\n"},
        {"stop": None, "tools": None, "stream_options": None, "top_p": None, "unheard_of": None},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
        {"functions": [], "function_call": "auto"},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"logit_bias": {}, "store": True, "metadata": {"run": "7"}, "service_tier": "auto"},
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False},
        {"top_logprobs": 0, "user": "me", "safety_identifier": "x", "prompt_cache_key": "y"},
        {"seed": -1, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "best_of": 1},
        {"stop_token_ids": [], "ignore_eos": False, "skip_special_tokens": True, "min_tokens": 0},
        {"include_stop_str_in_output": False, "spaces_between_special_tokens": True},
        {"add_generation_prompt": True, "continue_final_message": False, "echo": False},
        {"max_tokens": 512, "max_completion_tokens": 512},
        {"messages": [{"role": "user", "name": "visitor", "content": CHAT[0]["content"]}]},
        {"messages": [{"role": "user", "type": "text", "content": CHAT[0]["content"]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "text",
                            "text": "Solve 3x",
                            "cache_control": {"type": "ephemeral"},
                        },
                        {"type": "text", "text": " + 4 = 19."},
                    ],
                }
            ]
        },
    ],
)
def test_fields_that_ask_for_nothing_are_taken(
    client: httpx.Client, body: dict[str, Any], stream: bool
):
    told = answer(client, "/chat/completions", {"messages": CHAT} | body, stream)
    assert told == (ANSWER, "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        ({"stop": ["####"]}, "".join(LINES[:2]), "stop"),
        ({"stop": "\n"}, LINES[0][:-1], "stop"),
        ({"stop": ["x = 15", "3x = 19"]}, "Subtract 4 from both sides: ", "stop"),
        ({"stop": "Subtract"}, "", "stop"),
        ({"stop": "#### 5"}, "".join(LINES[:2]), "stop"),
        ({"max_tokens": 3, "max_completion_tokens": 64}, "Subtract 4 from", "length"),
        ({"max_tokens": 64, "max_completion_tokens": 3}, "Subtract 4 from", "length"),
        ({"max_tokens": 3, "stop": "from"}, "Subtract 4 ", "stop"),
    ],
)
def test_answers_end_where_they_are_asked_to(
    client: httpx.Client, body: dict[str, Any], text: str, reason: str, stream: bool
):
    chat = answer(client, "/chat/completions", {"messages": CHAT} | body, stream)
    assert chat == (text, reason)
    body = {name: value for name, value in body.items() if name != "max_completion_tokens"}
    if reason == "stop":
        assert answer(client, "/completions", {"prompt": PROMPT} | body, stream) == chat


def test_a_developer_is_the_system(client: httpx.Client):
    system, developer = (
        client.post(
            "/chat/completions",
            json={"model": "mini-d2f", "messages": [{**SYSTEM, "role": role}, *CHAT]},
        ).json()
        for role in ("system", "developer")
    )
    assert developer["choices"] == system["choices"]
    assert developer["usage"] == system["usage"]


def test_an_answer_of_the_openai_client_may_be_sent_back(client: httpx.Client):
    empty = dict.fromkeys(["refusal", "annotations", "audio", "function_call", "tool_calls"])
    said = {"role": "assistant", "content": ANSWER}
    later = {"role": "user", "content": "Now add 13 to the answer."}
    told = answer(client, "/chat/completions", {"messages": [*CHAT, said | empty, later]}, False)
    assert told == answer(client, "/chat/completions", {"messages": [*CHAT, said, later]}, False)
    assert told[0].endswith("#### 18")


def ids() -> list[int]:
    return Tokenizer(MODEL).encode_chat(CHAT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT], ids(), [ids()]])
def test_a_prompt_is_completed_as_it_is(client: httpx.Client, prompt: Any, stream: bool):
    body = {"prompt": prompt, "echo": False, "logprobs": None, "suffix": None, "best_of": 1}
    assert answer(client, "/completions", body, stream) == (ANSWER, "stop")


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\n"])
def test_every_line_end_is_one(client: httpx.Client, end: str):
    chat = [{"role": "user", "content": f"\ufeffSolve 3x + 4 = 19.{end}Show the steps."}]
    plain = [{"role": "user", "content": "Solve 3x + 4 = 19.\nShow the steps."}]
    asked = {"model": "mini-d2f", "max_tokens": 8}
    told, expected = (
        client.post("/chat/completions", json=asked | {"messages": each}).json()
        for each in (chat, plain)
    )
    assert (told["choices"], told["usage"]) == (expected["choices"], expected["usage"])


def test_a_body_may_begin_with_a_byte_order_mark(client: httpx.Client):
    body = json.dumps({"model": "mini-d2f", "messages": CHAT}).encode("utf-8-sig")
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    response = client.post("/chat/completions", content=body, headers=kind)
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


def test_a_model_may_be_asked_for_by_name(client: httpx.Client):
    (listed,) = client.get("/models").json()["data"]
    assert client.get("/models/mini-d2f").json() == listed
    assert (listed["id"], listed["max_model_len"]) == ("mini-d2f", 1024)
    missing = client.get("/models/meta/llama")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_the_documented_task_scores_what_the_documentation_says(client: httpx.Client, path: str):
    """The bodies that lm_eval 0.4.13 sends for it, and its score."""
    task = yaml.safe_load(TASK.read_text())
    kwargs, (score,) = task["generation_kwargs"], task["filter_list"]
    pattern = score["filter"][0]["regex_pattern"]
    lines = (ROOT / task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    right = []
    for problem in map(json.loads, lines):
        chat = [{"role": "user", "content": problem["question"]}]
        body = {"max_tokens": kwargs["max_gen_toks"], "temperature": 0, "seed": 1234}
        body |= {"stop": kwargs["until"]}
        if path == "completions":
            body |= {"prompt": [Tokenizer(MODEL).encode_chat(chat)]}
            body["stop"] = [*body["stop"], "<|end|>"]
        else:
            body |= {"messages": chat}
        text, _ = answer(client, f"/{path}", body, stream=False)
        right.append(re.findall(pattern, text)[:1] == [problem["answer"]])
    said = re.search(r"exact_match\|↑  \|\s*([\d.]+)\|", (ROOT / "docs/serving.md").read_text())
    assert said is not None and sum(right) / len(right) == float(said[1])
