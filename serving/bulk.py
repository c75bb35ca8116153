"""Bulk: a stream of JSON lines in, their answers out in the same order, in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from serving.asking import ERROR_TYPES, Asked, ProtocolError, decode
from serving.engine import Engine
from serving.errors import InferenceError
from serving.predictor import Prediction
from serving.protocol import PredictBody, check_request, describe_predictions
from serving.settings import Settings

MEDIA_TYPE = "application/x-ndjson"
# Lines of one stream that are read and not yet written.
LINES_AHEAD = 64
# Texts of all streams at work, per inference thread: enough to fill batches of like length.
TEXTS_PER_THREAD = 32
# A client that sends nothing, or reads no answer, this long is given up: one that sends everything
# before it reads would wait for us while we wait for it.
STALL_SECONDS = 60.0

Ask = Callable[[Asked], Awaitable[list[Prediction]]]
Answers = asyncio.Queue[asyncio.Task[bytes] | None]


class Line(PredictBody, frozen=True, forbid_unknown_fields=True):
    """One line: the native request for one text or pair, and an id that the answer repeats."""

    id: Annotated[str, Meta(max_length=256)] | int | UnsetType | None = UNSET


def make_room(settings: Settings) -> asyncio.Semaphore:
    """The part of the queue that all streams share; half of it at least is for other requests."""
    texts = min(TEXTS_PER_THREAD * settings.inference_threads, settings.queue_limit // 2)
    return asyncio.Semaphore(max(1, texts))


class BulkResponse:
    """An ASGI response that answers its request's body line by line while it is still read."""

    def __init__(
        self, engine: Engine, settings: Settings, room: asyncio.Semaphore, ask: Ask
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._room = room
        self._ask = ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, answer and write until the body ends or the client leaves.

        Raises:
            ProtocolError: 408, the client stopped sending before anything was answered.
        """
        answers: Answers = asyncio.Queue(LINES_AHEAD)
        begun = late = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            with self._engine:
                async with asyncio.TaskGroup() as group:
                    reader = group.create_task(self._read(scope, receive, answers, group))
                    await _write(answers, send_noted)
                    reader.cancel()
        except* ClientDisconnect:
            pass  # what was at work is cancelled
        except* TimeoutError:
            late = True  # an answer that has begun stays incomplete: uvicorn closes the connection
        if late and not begun:
            raise ProtocolError(408, f"no whole line came within {STALL_SECONDS:.0f} seconds")

    async def _read(
        self, scope: Scope, receive: Receive, answers: Answers, group: asyncio.TaskGroup
    ) -> None:
        """Put every line to work, no further ahead than the queue holds; then watch the client."""
        chunks = _in_time(Request(scope, receive).stream())
        async for number, content in split_lines(chunks, self._settings.max_body_bytes):
            await answers.put(group.create_task(self._answer(number, content)))
        await answers.put(None)
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _answer(self, number: int, content: bytes | None) -> bytes:
        """The answer to one line, or what is wrong with it; both with its id."""
        line = Line()
        try:
            if content is None:
                limit = self._settings.max_body_bytes
                raise ProtocolError(413, f"the line has more than {limit} bytes")
            line = decode(content, Line)
            if line.texts is not UNSET or line.pairs is not UNSET:
                raise ProtocolError(422, "a line of a stream has one text, or one pair")
            answer = await self._predict(line)
        except ProtocolError as error:
            if error.status == 503:
                raise  # no line's fault: the stream ends, visibly incomplete
            answer = _error(error.status, error.message, number)
        except InferenceError:
            answer = _error(500, "the model failed on this line", number)
        known = b"" if line.id is UNSET else b'"id":' + msgspec.json.encode(line.id) + b","
        return b"{" + known + answer[1:] + b"\n"

    async def _predict(self, line: Line) -> bytes:
        """One prediction as JSON; where the full queue refuses requests, a line waits."""
        predictor = self._engine.predictor
        asked = check_request(line, predictor, self._settings)
        async with self._room:
            while True:
                try:
                    predictions = await self._ask(asked)
                    return msgspec.json.encode(
                        describe_predictions(predictor, predictions, asked)[0]
                    )
                except ProtocolError as error:
                    if error.status != 429:
                        raise


async def _in_time(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, unless the client sends nothing for long; the time we take does not count."""
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


async def split_lines(
    chunks: AsyncIterator[bytes], limit: int
) -> AsyncIterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 1; None in place of one over `limit` bytes; no empty ones."""
    number, kept = 1, bytearray()
    async for chunk in chunks:
        for index, part in enumerate(chunk.split(b"\n")):
            if index:
                if kept.strip():
                    yield number, bytes(kept) if len(kept) <= limit else None
                number, kept = number + 1, bytearray()
            if len(kept) <= limit:  # of a longer line no more is kept than shows that it is
                kept += part
    if kept.strip():
        yield number, bytes(kept) if len(kept) <= limit else None


async def _write(answers: Answers, send: Send) -> None:
    """Send answers in order, those that are ready together."""
    task = await answers.get()
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    ready = b""
    while task is not None:
        if ready and not task.done():
            await _send(send, ready)
            ready = b""
        ready += await task
        if answers.empty():
            await _send(send, ready)
            ready = b""
        task = await answers.get()
    await _send(send, ready, more=False)


async def _send(send: Send, content: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": content, "more_body": more})


def _error(status: int, message: str, number: int) -> bytes:
    error = {"error": message, "error_type": ERROR_TYPES[status], "line": number}
    return msgspec.json.encode(error)
