"""The bundle that answers: its predictor, and the inference threads that run it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from serving.predictor import Predictor
from serving.scheduling import Scheduler
from serving.settings import Settings


class Engine:
    """A predictor with its scheduler; a `with` around a request keeps it from being closed."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor = predictor
        self.scheduler = Scheduler(predictor, settings.threads, settings.queue_limit)
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
    """The engine of now; a request takes `current` once and keeps to it."""

    def __init__(self, bundle: Predictor | Path | str, settings: Settings) -> None:
        if not isinstance(bundle, Predictor):
            bundle = Predictor.open(bundle, provider=settings.execution_provider)
        self.current = Engine(bundle, settings)

    async def start(self) -> None:
        """Start the inference threads.

        Raises:
            InferenceError: the model fails on its warm-up inputs.
        """
        await self.current.scheduler.start()

    def close(self) -> None:
        """End the inference threads."""
        self.current.scheduler.close()
