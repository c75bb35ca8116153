"""What the server counts, for Prometheus; labels hold nothing that a client can choose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from serving.predictor import Predictor
from serving.tokenization import Encoded

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Set by the supervisor of several processes: where they share what they count.
SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
POWERS = tuple(2.0**power for power in range(10))


class Metrics:
    """The counters of one application; also an observer of its scheduler.

    `waiting`, to be set, tells how many texts are accepted and not yet answered.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def histogram(name: str, told: str, bounds: Sequence[float]) -> Histogram:
            return Histogram(f"serving_{name}", told, registry=registry, buckets=bounds)

        def counter(name: str, told: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"serving_{name}", told, labels, registry=registry)

        self._requests = counter("requests", "Requests by route and status.", ["route", "status"])
        self._seconds = Histogram(
            "serving_request_seconds",
            "From the head of a request to the start of its answer.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        self._refused = counter("refused", "Requests refused by reason.", ["reason"])
        self._reloads = counter("reloads", "Reloads by outcome.", ["outcome"])
        self._truncated = counter("truncated_texts", "Texts run of which tokens were cut off.")
        self._padding = counter("padding_tokens", "Tokens run only to fill a batch.")
        self._depth = Gauge(
            "serving_queue_depth",
            "Texts accepted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._info = Gauge(
            "serving_model_info",
            "1 for the bundle that answers.",
            ["name", "version", "form", "sha256"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._texts = histogram("batch_texts", "Texts run together.", POWERS[:8])
        self._tokens = histogram("batch_tokens", "Tokens run together, padding included.", POWERS)
        self._tokenization = histogram("tokenization_seconds", "Tokenization.", SECONDS)
        self._queue = histogram("queue_seconds", "Of a text, from arrival to its run.", SECONDS)
        self._inference = histogram("inference_seconds", "One run of the model.", SECONDS)
        self.waiting: Callable[[], int] = int
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._served: Gauge | None = None
        if SHARED_DIRECTORY not in os.environ:
            ProcessCollector(registry=registry)

    def answered(self, route: str, status: int, reason: str | None, seconds: float) -> None:
        """Count a request; `route` is a template of ours, `reason` why it was refused."""
        children = self._children.get((route, status))
        if children is None:
            children = self._requests.labels(route, status), self._seconds.labels(route)
            self._children[route, status] = children
        children[0].inc()
        children[1].observe(seconds)
        if reason is not None:
            self._refused.labels(reason).inc()

    def tokenized(self, seconds: float) -> None:
        """Count the tokenization of what waited."""
        self._tokenization.observe(seconds)

    def ran(self, batch: Sequence[Encoded], waited: Sequence[float], seconds: float) -> None:
        """Count one micro-batch."""
        lengths = [len(item) for item in batch]
        padded = max(lengths) * len(lengths)
        self._texts.observe(len(lengths))
        self._tokens.observe(padded)
        self._padding.inc(padded - sum(lengths))
        self._truncated.inc(sum(item.truncated for item in batch))
        self._inference.observe(seconds)
        for one in waited:
            self._queue.observe(one)
        self._depth.set(self.waiting())

    def reloaded(self, outcome: str) -> None:
        """Count a reload."""
        self._reloads.labels(outcome).inc()

    def serves(self, predictor: Predictor) -> None:
        """Tell which bundle answers from now on."""
        if self._served is not None:
            self._served.set(0)
        manifest = predictor.manifest
        model = manifest.model
        record = manifest.files.get(model.file)
        digest = record.sha256 if record else ""
        self._served = self._info.labels(manifest.name, manifest.version, model.form, digest)
        self._served.set(1)

    def text(self) -> bytes:
        """Everything counted, of all processes where there are several."""
        self._depth.set(self.waiting())
        if SHARED_DIRECTORY not in os.environ:
            return generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
