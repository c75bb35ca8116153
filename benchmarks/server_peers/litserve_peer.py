"""LitServe serving the raw loop's model, one worker, no batching (its faster setting here).

python litserve_peer.py BUNDLE PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import litserve

sys.path.insert(0, str(Path(__file__).parents[1]))
from server_raw import open_bundle


class Api(litserve.LitAPI):
    """One text in, the probability of every label out."""

    classify: Callable[[str], dict[str, float]]

    def setup(self, device: str) -> None:
        """Open the bundle in the worker."""
        self.classify = open_bundle(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a body."""
        return request["text"]

    def predict(self, text: str) -> dict[str, float]:
        """Run the model."""
        return self.classify(text)

    def encode_response(self, output: dict[str, float]) -> dict[str, float]:
        """The body of an answer."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(sys.argv[2]), host="127.0.0.1", log_level="error", generate_client_file=False
    )
