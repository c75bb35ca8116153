"""MLServer serving the raw loop's model, one process, no batching (its faster setting here).

python mlserver_peer.py BUNDLE PORT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

sys.path.insert(0, str(Path(__file__).parents[1]))
from server_raw import open_bundle


class Runtime(MLModel):
    """One text in, label names and their probabilities out."""

    async def load(self) -> bool:
        """Open the bundle."""
        self.classify = open_bundle(Path(sys.argv[1]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model."""
        (text,) = StringCodec.decode_input(payload.inputs[0])
        scores = self.classify(text)
        output = StringCodec.encode_output("scores", [f"{k}:{v}" for k, v in scores.items()])
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[2])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=0,
        debug=False,
        use_structured_logging=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="peer", implementation=Runtime)])


if __name__ == "__main__":
    asyncio.run(main())
