"""A child process that receives requests as lines of JSON and answers with lines."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# What the modules of the factory import inside functions, and what transformers, torch and onnx
# import on first use.
LAZY_LIBRARIES = (
    "matplotlib.backends.backend_svg", "onnxruntime", "optimum.exporters.onnx", "pandas",
    "scipy.optimize", "scipy.stats", "sklearn.metrics", "tensorboardX", "torch._dynamo",
    "torch.distributed", "torch.onnx", "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert_fast",
)  # fmt: skip


def import_everything() -> None:
    """Import the factory and its libraries, so that forked processes do not have to."""
    import factory

    for module in pkgutil.walk_packages(factory.__path__, "factory."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LAZY_LIBRARIES:
        importlib.import_module(name)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """The running child."""

    process: subprocess.Popen[str]

    def ask(self, request: Any) -> None:
        """Send one request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The child's next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def server_process(script: str) -> Iterator[ServerProcess]:
    """Run a script of the tests until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield ServerProcess(process)
    finally:
        process.kill()
        process.communicate()
