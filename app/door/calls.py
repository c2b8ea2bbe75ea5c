"""What a call of the page's functions may hold: names that there are, of the length of a name."""

import inspect
import re
from collections.abc import Iterator, Sequence
from reprlib import repr as brief
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction

from d2f.errors import InvalidInput
from d2f.strict_json import NoJson, from_json

from .refused import Refused

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # Gradio's clients take letters, digits and dashes


def check_name(what: str, value: Any) -> str:
    """A name that a client made up: of a session, an event."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Refused(400, f"{what} must be 1 to 64 letters, digits, - or _, got {brief(value)}")
    return value


def check_call(path: Sequence[str], body: bytes, blocks: gr.Blocks) -> None:
    """Refuses a body that names what there is not, before Gradio reads it.

    Args:
        path: the parts of the address below that of the API.

    Raises:
        Refused: 404 for a function that there is not, else 400.
    """
    call = _parsed(body)
    for name in ("session_hash", "event_id"):
        if call.get(name) is not None:
            check_name(name, call[name])
    for value in _nested(call):
        _check_file(value)
    match path:
        case ["call", "v2", name]:
            _check_named(_function(name, blocks), call)
        case ["queue", "join"]:
            check_name("session_hash", call.get("session_hash"))
            _check_form(call, None, blocks)
        case ["run" | "api" | "call", name]:
            _check_form(call, name, blocks)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        call = from_json(body)
    except NoJson as error:
        raise Refused(400, "The body must be JSON.") from error
    except InvalidInput as error:
        raise Refused(400, f"The body must be JSON: {error}.") from error
    if not isinstance(call, dict):
        raise Refused(400, f"The body must be a JSON object, got {brief(call)}")
    return call


def _nested(call: Any) -> Iterator[dict[str, Any]]:
    """Every object in a value, itself included."""
    left = [call]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
        left += value.values() if isinstance(value, dict) else ()
        left += value if isinstance(value, list) else ()


def _check_file(value: dict[str, Any]) -> None:
    """A file is uploaded first: Gradio would fetch one of any size from another server."""
    path = value.get("path")
    if isinstance(path, str) and path.lower().startswith(("http:", "https:")):
        raise Refused(400, f"A file must be uploaded, not fetched from {brief(path)}")


def _check_form(call: dict[str, Any], name: str | None, blocks: gr.Blocks) -> None:
    """A call by a function's number, or else by its name, with its values in a row."""
    index, data = call.get("fn_index"), call.get("data")
    if index is not None:
        if type(index) is not int or index not in blocks.fns:
            raise Refused(404, f"There is no function of fn_index {brief(index)} here.")
    elif name is not None:
        _function(name, blocks)
    else:
        raise Refused(400, "fn_index must say which function is called.")
    if not isinstance(data, list):
        raise Refused(400, f"data must be a list of values, got {brief(data)}")


def _function(name: str, blocks: gr.Blocks) -> BlockFunction:
    """The function of a name.

    Raises:
        Refused: there is none; it says which endpoints there are.
    """
    for function in blocks.fns.values():
        if function.api_name == name:
            return function
    public = [f"/{f.api_name}" for f in blocks.fns.values() if f.api_visibility == "public"]
    known = ", ".join(public)
    raise Refused(404, f"There is no endpoint {brief(f'/{name}')} here. There are: {known}.")


def _check_named(function: BlockFunction, values: dict[str, Any]) -> None:
    """Values by their names."""
    assert function.fn is not None  # the page has no function in the browser alone
    parameters = {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in inspect.signature(function.fn).parameters.items()
        if parameter.annotation is not gr.Request
    }
    known = ", ".join(parameters)
    for name in values:
        if name not in parameters:
            raise Refused(400, f"There is no value {brief(name)} here. There are: {known}.")
    for name, needed in parameters.items():
        if needed and name not in values:
            raise Refused(400, f"The value {name!r} is missing. There are: {known}.")
