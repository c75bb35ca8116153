"""Inference threads beside the event loop, and the bound on what waits for them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from serving.predictor import Prediction, Predictor
from serving.tokenization import Inputs

START_SECONDS = 60.0


class QueueFullError(Exception):
    """More texts wait than the limit allows; the caller should come back later."""


class NotReadyError(Exception):
    """No inference threads: not started, stopped, or died."""


class Scheduler:
    """Runs requests on a fixed set of threads; a request that fails leaves the others alone."""

    def __init__(self, predictor: Predictor, threads: int, queue_limit: int) -> None:
        self._predictor = predictor
        self._thread_count = threads
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._waiting = 0
        self._workers: list[threading.Thread] = []
        self._executor: ThreadPoolExecutor | None = None

    @property
    def ready(self) -> bool:
        """Every inference thread has warmed up and is alive."""
        return (
            self._executor is not None
            and len(self._workers) == self._thread_count
            and all(worker.is_alive() for worker in self._workers)
        )

    async def start(self) -> None:
        """Start the threads and warm the model up on each.

        Raises:
            InferenceError: the model fails on its warm-up inputs.
        """
        # One task per thread, all waiting for each other, so the pool starts every thread.
        barrier = threading.Barrier(self._thread_count)

        def warm_up() -> threading.Thread:
            barrier.wait(START_SECONDS)
            self._predictor.warm_up()
            return threading.current_thread()

        executor = ThreadPoolExecutor(self._thread_count, thread_name_prefix="inference")
        tasks = [asyncio.wrap_future(executor.submit(warm_up)) for _ in range(self._thread_count)]
        try:
            self._workers = list(await asyncio.gather(*tasks))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        self._executor = executor

    async def predict(self, inputs: Inputs) -> list[Prediction]:
        """Answer a request on an inference thread.

        Raises:
            QueueFullError: the texts do not fit beside those waiting.
            NotReadyError: there are no inference threads.
            ServingError: what the predictor raises.
        """
        executor = self._executor
        if executor is None or not self.ready:
            raise NotReadyError
        texts = len(inputs)
        self._admit(texts)
        try:
            future = executor.submit(self._predictor.predict, inputs)
        except RuntimeError as error:  # the pool is broken or shutting down
            self._release(texts)
            raise NotReadyError from error
        # On the thread's future, not in a finally here: a caller that goes away must not make
        # room for others while its texts still run.
        future.add_done_callback(lambda _: self._release(texts))
        return await asyncio.wrap_future(future)

    def _admit(self, texts: int) -> None:
        """Count texts in, or refuse them."""
        with self._lock:
            if self._waiting + texts > self._queue_limit:
                raise QueueFullError
            self._waiting += texts

    def _release(self, texts: int) -> None:
        """Count texts out; runs on the inference threads too."""
        with self._lock:
            self._waiting -= texts

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
