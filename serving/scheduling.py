"""Inference threads beside the event loop: what waits is run in small batches of like length."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.batching import WaitingLine
from serving.predictor import Prediction, Predictor
from serving.tokenization import Encoded, Inputs

START_SECONDS = 60.0
# A run that takes longer hangs: the server stops calling itself ready.
RUN_SECONDS = 30.0
# A request that finds the queue full is held this long before it is refused: a refusal sent at once
# is retried at once, and under fourfold overload that halves the useful answers.
HOLD_SECONDS = 0.25


class QueueFullError(Exception):
    """More texts wait than the limit allows; the caller should come back later."""


class NotReadyError(Exception):
    """No inference threads: not started, stopped, died or hanging."""


class Observer(Protocol):
    """Who counts; called from the inference threads, after the answers are on their way."""

    def tokenized(self, seconds: float) -> None:
        """Requests were tokenized together."""

    def ran(self, batch: Sequence[Encoded], waited: Sequence[float], seconds: float) -> None:
        """A micro-batch was run, whose texts had waited this many seconds each."""


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its answers, filled in by whichever threads run its texts."""

    inputs: Inputs
    encoded: Sequence[Encoded] | None
    future: asyncio.Future[list[Prediction]]
    arrived: float
    answers: dict[int, Prediction] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Text:
    """One text of a request, tokenized; its length is its number of tokens."""

    job: _Job
    position: int
    encoded: Encoded

    def __len__(self) -> int:
        return len(self.encoded)


class Scheduler:
    """Runs whatever waits on a fixed set of threads; a text that fails fails alone."""

    def __init__(
        self,
        predictor: Predictor,
        threads: int,
        queue_limit: int,
        observer: Observer | None = None,
    ) -> None:
        self._predictor = predictor
        self._observer = observer
        self._queue_limit = queue_limit
        self._thread_count = threads
        self._threads: list[threading.Thread] = []
        self._running_since: list[float | None] = [None] * threads
        self._changed = threading.Condition()
        # All below is guarded by the condition's lock.
        self._accepted = 0
        self._jobs: deque[_Job] = deque()
        # Requests that found the queue full, oldest first; touched on the event loop alone.
        self._held: deque[tuple[_Job, asyncio.Future[None]]] = deque()
        # What depends on its neighbours runs alone.
        together = predictor.manifest.model.neighbour_independent
        self._texts = WaitingLine[_Text](predictor.batch_tokens if together else 0)
        self._closed = True
        self._warm = 0
        self._failure: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Every inference thread has warmed up, is alive, and is not stuck in a run."""
        if self._closed or self._warm < self._thread_count:
            return False
        now = time.monotonic()
        stuck = any(since and now - since > RUN_SECONDS for since in list(self._running_since))
        return not stuck and all(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """Texts accepted and not yet answered."""
        return self._accepted

    async def start(self) -> None:
        """Start the threads and warm the model up on each.

        Raises:
            InferenceError: the model fails on its warm-up inputs.
        """
        self._closed, self._warm, self._failure = False, 0, None
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(
                target=self._work, args=(number,), name=f"inference-{number}", daemon=True
            )
            for number in range(self._thread_count)
        ]
        for thread in self._threads:
            thread.start()
        await asyncio.to_thread(self._wait_until_warm)
        if self._failure is not None:
            self.close()
            raise self._failure

    def _wait_until_warm(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or self._warm == self._thread_count,
                START_SECONDS,
            )

    async def predict(
        self, inputs: Inputs, encoded: Sequence[Encoded] | None = None
    ) -> list[Prediction]:
        """Answer a request on the inference threads.

        Args:
            encoded: the inputs as tokens, when they came so.

        Raises:
            QueueFullError: the texts do not fit beside those waiting, and did not while held.
            NotReadyError: there are no inference threads.
            ServingError: what the predictor raises.
        """
        if not self.ready:
            raise NotReadyError
        job = _Job(inputs, encoded, self._loop.create_future(), time.monotonic())
        if self._held or not self._admit(job):
            await self._wait_for_room(job)
        return await job.future

    def _admit(self, job: _Job) -> bool:
        """Accept a request if its texts fit beside those that wait."""
        with self._changed:
            if self._accepted + len(job.inputs) > self._queue_limit:
                return False
            self._accepted += len(job.inputs)
            self._jobs.append(job)
            self._changed.notify()
            return True

    async def _wait_for_room(self, job: _Job) -> None:
        """Hold a request until there is room for it and for all that were held before."""
        admitted = self._loop.create_future()
        self._held.append((job, admitted))
        self._let_in()  # room made while nobody was held is noticed by nobody else
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                await admitted
        except TimeoutError as error:
            if admitted.cancelled():
                raise QueueFullError from error
        except BaseException:
            job.future.cancel()
            raise

    def _let_in(self) -> None:
        """Accept held requests, oldest first, while there is room."""
        while self._held:
            job, admitted = self._held[0]
            if not admitted.done():  # else its time is over, or its client left
                if not self._admit(job):
                    return
                admitted.set_result(None)
            self._held.popleft()

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        with self._changed:
            self._closed = True
            left = {*self._jobs, *(text.job for text in self._texts.clear())}
            self._jobs.clear()
            self._changed.notify_all()
        for job in left:
            self._on_loop(_fail, job, NotReadyError())
        for _, admitted in self._held:
            self._on_loop(_refuse, admitted)
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """One inference thread: warm up, then tokenize and run until closed."""
        try:
            self._predictor.warm_up()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            return
        with self._changed:
            self._warm += 1
            self._changed.notify_all()
        while (turn := self._next_turn()) is not None:
            jobs, texts = turn
            self._running_since[number] = begin = time.monotonic()
            if jobs:
                self._tokenize(jobs)
                if self._observer:
                    self._observer.tokenized(time.monotonic() - begin)
            else:
                self._run(texts)
            self._running_since[number] = None

    def _next_turn(self) -> tuple[list[_Job], list[_Text]] | None:
        """Requests to tokenize, or texts to run, as soon as there are any; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs or self._texts)
            if self._closed:
                return None
            # New requests first, so that the texts to choose from are all that wait; a share,
            # so that the other threads have something to do.
            share = -(-len(self._jobs) // self._thread_count)
            jobs = [self._jobs.popleft() for _ in range(share)]
            return jobs, [] if jobs else self._texts.take()

    def _tokenize(self, jobs: Sequence[_Job]) -> None:
        """Turn requests into texts that wait to be run; a request that cannot be fails alone."""
        for job in jobs:
            if job.future.done():  # the client went away
                self._release(len(job.inputs))
                continue
            try:
                encoded = job.encoded or self._predictor.tokenize(job.inputs)
            except Exception as error:
                self._release(len(job.inputs))
                self._on_loop(_fail, job, error)
                continue
            if not encoded:
                self._on_loop(_finish, job)
                continue
            with self._changed:
                for position, item in enumerate(encoded):
                    self._texts.add(_Text(job, position, item))
                self._changed.notify(len(encoded))

    def _run(self, texts: Sequence[_Text]) -> None:
        """Run texts together, and one by one when that fails, so that only the culprit fails."""
        wanted = [text for text in texts if not text.job.future.done()]
        self._release(len(texts) - len(wanted))
        if not wanted:
            return
        begin = time.monotonic()
        batch = [text.encoded for text in wanted]
        try:
            predictions = self._predictor.answer(batch)
        except Exception as error:
            if len(wanted) > 1:
                for text in wanted:
                    self._run([text])
                return
            self._release(1)
            self._on_loop(_fail, wanted[0].job, error)
            return
        self._release(len(wanted))
        self._on_loop(_deliver, wanted, predictions)
        if self._observer:
            waited = [begin - text.job.arrived for text in wanted]
            self._observer.ran(batch, waited, time.monotonic() - begin)

    def _release(self, texts: int) -> None:
        """Count texts out, which makes room for others."""
        with self._changed:
            self._accepted -= texts
        if self._held:
            self._on_loop(self._let_in)

    def _on_loop(self, function: Callable[..., None], *given: Any) -> None:
        """Call a function where futures may be touched; nobody waits once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *given)


def _deliver(texts: Sequence[_Text], predictions: Sequence[Prediction]) -> None:
    """Hand over the answers of one run, and finish the requests that have all of theirs."""
    for text, prediction in zip(texts, predictions, strict=True):
        text.job.answers[text.position] = prediction
        _finish(text.job)


def _finish(job: _Job) -> None:
    if len(job.answers) == len(job.inputs) and not job.future.done():
        job.future.set_result([job.answers[position] for position in range(len(job.inputs))])


def _refuse(admitted: asyncio.Future[None]) -> None:
    if not admitted.done():
        admitted.set_exception(NotReadyError())


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
