"""Errors as clients are told them: OpenAI's error object. Knows no endpoint and no model."""

import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from d2f.errors import D2FError, InvalidInput, TooLittleMemory

FAILED = "the run failed on the server; its log says more"
MAX_MESSAGE, MAX_LOG = 1000, 8000  # characters
MAX_FRAMES = 20
KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
LOG = logging.getLogger(__name__)


class Refused(D2FError):
    """A request that is answered with an error: ``param`` names the field at fault."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's error object: one line of bounded length, whatever the client sent."""
        server = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": _clipped(" ".join(str(self).split()), MAX_MESSAGE),
            "type": KINDS.get(self.status, server),
            "param": self.param and _clipped(self.param, MAX_MESSAGE),
            "code": self.code,
        }
        return {"error": error}


@contextmanager
def about(param: str) -> Iterator[None]:
    """Input that is refused inside was in the field ``param``."""
    try:
        yield
    except InvalidInput as error:
        raise Refused(400, str(error), param) from error


def refusal(error: Exception) -> Refused:
    """The answer to any error. One that is no ``D2FError`` is logged, and no more is told of it."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ClientDisconnect):
        return Refused(400, "the client left before its request was whole")
    if isinstance(error, InvalidInput):
        return Refused(400, str(error))
    if isinstance(error, D2FError):
        LOG.error("a run failed: %s", _clipped(str(error), MAX_MESSAGE))
        return Refused(503 if isinstance(error, TooLittleMemory) else 500, str(error))
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-MAX_FRAMES)
    LOG.error("a run failed\n%s", _clipped("".join(lines), MAX_LOG))
    return Refused(500, FAILED)


async def errors_told() -> AsyncIterator[None]:
    """A dependency of endpoints: what they raise is answered, and logged once.

    Starlette raises an error once more that a handler of ``Exception`` answered, and uvicorn logs
    it again, at any length.
    """
    try:
        yield
    except Exception as error:
        raise refusal(error) from None


def answer_errors(app: FastAPI) -> None:
    """Errors of the application's endpoints are answered in OpenAI's form, and so are addresses."""
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(HTTPException, _refuse_address)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse(error.to_dict(), error.status, headers)


async def _refuse_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    advice = (
        f"use {allowed}" if allowed else "nothing is here; chats go to POST /v1/chat/completions"
    )
    refused = Refused(error.status_code, f"{request.method} {request.url.path}: {advice}")
    return JSONResponse(refused.to_dict(), error.status_code, error.headers)


def _clipped(text: str, most: int) -> str:
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"
