"""Gradio's Blocks, whose every failure is told in words: on the board or, without one, as an error.

The one place where failures of handlers are told, those of values that Gradio cannot read included.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from textwrap import shorten
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components import Component
from gradio.utils import get_function_params

from d2f.errors import D2FError, InvalidInput

from ..failures import words
from .components import RaceBoard
from .messages import pack_now

MAX_WORDS = 300  # characters of Gradio's own words for a value that it cannot read


class ToldBlocks(gr.Blocks):
    """No exception leaves a handler, be it of the page or of the API, without words for its caller.

    Its methods overrule those through which Gradio calls every handler; tests hold that it does.
    """

    async def process_api(
        self, block_fn: BlockFunction | int, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As in Gradio, but what fails is a ``gr.Error`` with words, logged if need be."""
        try:
            return await super().process_api(block_fn, *args, **kwargs)
        except gr.Error as error:
            raise gr.Error(error.message, print_exception=False) from error
        except Exception as error:
            raise gr.Error(words(error), print_exception=False) from error

    async def call_function(
        self,
        block_fn: BlockFunction | int,
        processed_input: list[Any],
        iterator: AsyncIterator[Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in Gradio, but a handler that draws on the board tells there why it failed."""
        if isinstance(block_fn, int):
            block_fn = self.fns[block_fn]
        call = partial(super().call_function, block_fn, processed_input, iterator, *args, **kwargs)
        board = next((each for each in block_fn.outputs if isinstance(each, RaceBoard)), None)
        if board is None or iterator is not None:
            return await call()
        run = inspect.isgeneratorfunction(block_fn.fn)
        tell = partial(_on_board, board, run)
        try:
            result = await call()
        except Exception as error:
            result = {"prediction": tell(error), "duration": 0.0, "is_generating": run}
            return result | {"iterator": ToldSteps(None, tell) if run else None}
        return result | {"iterator": ToldSteps(result["iterator"], tell) if run else None}

    async def preprocess_data(
        self, block_fn: BlockFunction, *args: Any, **kwargs: Any
    ) -> list[Any]:
        """As in Gradio, but a value that its component cannot read is bad input."""
        try:
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except D2FError:
            raise
        except ValueError as error:
            reason = shorten(str(error.__cause__ or error), MAX_WORDS, placeholder=" …")
            raise InvalidInput(f"A value that was sent cannot be read: {reason}") from error

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Refuses too few values.

        Raises:
            InvalidInput: it names the values that are needed.
        """
        names, given = value_names(block_fn), len(inputs)
        if given < len(names):
            raise InvalidInput(f"{len(names)} values are needed, not {given}: {', '.join(names)}")


def value_names(block_fn: BlockFunction) -> list[str]:
    """What a function's values are, in order: the names of its parameters, or labels of a form."""
    assert block_fn.fn is not None  # the page has no function in the browser alone
    asked = [name for name, _, _, _ in get_function_params(block_fn.fn)]
    if len(asked) == len(block_fn.inputs):
        return asked
    return [
        str(getattr(block, "label", None) or block.get_block_name()) for block in block_fn.inputs
    ]


def _on_board(board: RaceBoard, run: bool, error: Exception) -> dict[Component, str]:
    """What a handler that failed draws; the board is to show that a run is over."""
    return {board: pack_now([{"kind": "error", "text": words(error), "over": run}])}


class ToldSteps:
    """The steps of a handler; if one fails, the last one tells so. None: no more steps."""

    def __init__(
        self,
        steps: AsyncGenerator[Any, Any] | None,
        tell: Callable[[Exception], dict[Component, str]],
    ) -> None:
        self._steps, self._tell = steps, tell

    def __aiter__(self) -> "ToldSteps":
        return self

    async def __anext__(self) -> Any:
        if self._steps is None:
            raise StopAsyncIteration
        try:
            return await anext(self._steps)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._steps = None
            return self._tell(error)

    async def aclose(self) -> None:
        """Ends the handler, also in the middle of a step, as Gradio does when nobody listens."""
        if self._steps is not None:
            await self._steps.aclose()
