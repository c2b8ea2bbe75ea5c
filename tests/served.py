"""What the tests of the service share: tiny models, their settings, and reading a stream."""

import json
from typing import Any

import httpx
from tiny import network

from d2f import ARConfig, D2FConfig, Model, Trace, generate
from d2f.config import DecodeConfig
from d2f.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "Count."}]
CONFIGS: dict[str, DecodeConfig] = {
    "ar": ARConfig(max_new_tokens=24),
    "d2f": D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2, tau_conf=0.5),
}


def small_model(kind: str, tokenizer: Tokenizer) -> Model:
    changes = {"causal": True} if kind == "ar" else {"mask_id": tokenizer.mask_id}
    net = network(tokenizer.vocab_size, max_length=256, logit_shift=True, **changes)
    return Model(f"small-{kind}", net, tokenizer)


def here(model: Model, config: DecodeConfig) -> Trace:
    """The run that the service is to answer with."""
    return generate(model, model.tokenizer.encode_chat(CHAT), config)


def messages(response: httpx.Response) -> list[tuple[str, Any]]:
    """Kind and data of each server-sent event."""
    events = []
    for block in response.read().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "data" in fields:
            done = fields["data"] == "[DONE]"
            events.append((fields.get("event", ""), done or json.loads(fields["data"])))
    return events


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error, which has every field of OpenAI's."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"] and len(error["message"]) <= 1003
    return error
