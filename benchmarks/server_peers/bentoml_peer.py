"""BentoML serving the raw loop's model, one worker, adaptive batching (its faster setting here).

PEER_BUNDLE=BUNDLE bentoml serve bentoml_peer:Peer --port PORT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml

sys.path.insert(0, str(Path(__file__).parents[1]))
from server_raw import open_bundle


@bentoml.service(workers=1)
class Peer:
    """Texts in, the probability of every label out."""

    def __init__(self) -> None:
        self.classify = open_bundle(Path(os.environ["PEER_BUNDLE"]))

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, text: list[str]) -> list[dict[str, float]]:
        """Run the model on every text of a batch."""
        return [self.classify(item) for item in text]
