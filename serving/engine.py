"""The bundle that answers: opened, its inference threads started, swapped for another, closed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
from pathlib import Path
from types import TracebackType

from serving.errors import BundleError
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.scheduling import Scheduler
from serving.settings import Settings

logger = logging.getLogger("serving")

RETIRE_SECONDS = 0.05


class Engine:
    """A predictor with its scheduler; a `with` around a request keeps it from being closed."""

    def __init__(self, predictor: Predictor, scheduler: Scheduler) -> None:
        self.predictor = predictor
        self.scheduler = scheduler
        self.users = 0

    def __enter__(self) -> Engine:
        self.users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.users -= 1


class Engines:
    """The engine of now; a request takes `current` once and keeps to it.

    `stopping` is set once the process has been told to end.
    """

    def __init__(
        self, bundle: Predictor | Path | str, settings: Settings, metrics: Metrics
    ) -> None:
        self._settings = settings
        self.metrics = metrics
        self._path = None if isinstance(bundle, Predictor) else Path(bundle)
        self._one_at_a_time = asyncio.Lock()
        self._retired: set[Engine] = set()
        self.stopping = False
        self.current = self._engine(bundle if isinstance(bundle, Predictor) else self._open())
        metrics.waiting = lambda: self.current.scheduler.waiting
        metrics.serves(self.current.predictor)

    def _open(self) -> Predictor:
        """The bundle that stands at the path now, even if a link there is changed meanwhile."""
        if self._path is None:
            raise BundleError("memory", ["there is no path to open again"], "start with a path")
        path = self._path.resolve()
        return Predictor.open(path, provider=self._settings.execution_provider)

    def _engine(self, predictor: Predictor) -> Engine:
        threads, limit = self._settings.inference_threads, self._settings.queue_limit
        return Engine(predictor, Scheduler(predictor, threads, limit, self.metrics))

    async def start(self) -> None:
        """Start the inference threads.

        Raises:
            InferenceError: the model fails on its warm-up inputs.
        """
        await self.current.scheduler.start()

    async def reload(self) -> None:
        """Open the bundle's path again and answer from it; one that is bad changes nothing."""
        async with self._one_at_a_time:
            try:
                engine = self._engine(await asyncio.to_thread(self._open))
                await engine.scheduler.start()
            except Exception as error:
                self.metrics.reloaded("refused")
                logger.error("reload refused, the bundle of before goes on: %s", error)
                return
            old, self.current = self.current, engine
            self._retired.add(old)
        self.metrics.reloaded("done")
        self.metrics.serves(engine.predictor)
        logger.info("reloaded: %s %s", engine.predictor.name, engine.predictor.version)
        while old.users:
            await asyncio.sleep(RETIRE_SECONDS)
        await asyncio.to_thread(old.scheduler.close)
        self._retired.discard(old)
        del old
        await asyncio.to_thread(_give_memory_back)

    def close(self) -> None:
        """End the inference threads."""
        for engine in (self.current, *self._retired):
            engine.scheduler.close()


def _give_memory_back() -> None:
    """Return what is free to the system; glibc keeps it: 100 MB more after twenty reloads."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
