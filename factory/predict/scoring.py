"""Texts to logits on every core, in order, a bounded number of chunks at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from serving.errors import InferenceError, InputError
from serving.predictor import Predictor
from serving.tokenization import Inputs

# Rows scored together, sorted by length. Answers may differ in their last digits with the texts
# that run beside them, so resumed work must cut where uninterrupted work cuts.
CHUNK_ROWS = 512

Texts = Sequence[tuple[str, ...]]


def score_chunks(
    predictor: Predictor, chunks: Iterable[Texts], threads: int
) -> Iterator[NDArray[np.float32]]:
    """The logits of each chunk, in order; rows the model fails on are not a number.

    Threads share the predictor, each running on one core: as much work per second as processes,
    which would each hold a model (measured: 2 % more CPU time than one thread, processes 18 %).
    """
    # one tokenizer thread per inference thread
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    running: deque[Future[NDArray[np.float32]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            for chunk in chunks:
                running.append(pool.submit(_score, predictor, chunk))
                if len(running) > 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _score(predictor: Predictor, texts: Texts) -> NDArray[np.float32]:
    """One chunk: (rows, labels)."""
    try:
        return predictor.logits(_inputs(predictor, texts))
    except (InferenceError, InputError):
        if len(texts) == 1:
            return np.full((1, len(predictor.labels)), np.nan, dtype=np.float32)
        return np.concatenate([_score(predictor, [text]) for text in texts])


def _inputs(predictor: Predictor, texts: Texts) -> Inputs:
    if predictor.text_pair:
        return [(text[0], text[1]) for text in texts]
    return [text[0] for text in texts]
