"""Settings of every test (no network, own caches, the marker `unit`), and shared fixtures."""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Read when torch loads OpenMP. The models here are too small for a second thread; on busy cores,
# waiting for it takes most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Read when the hub libraries are first imported, so before any test module; processes that tests
# start inherit them. `HF_HUB_OFFLINE=0 pytest -m network` lets the tests marked network through.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_CACHE = tempfile.mkdtemp(prefix="factory-tests-")
os.environ["HF_HOME"] = _CACHE
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)  # each of these would win over HF_HOME
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# On GitHub, tests must not write to the summary of their own job.
os.environ.pop("GITHUB_STEP_SUMMARY", None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name gzipped parameters without their bytes, which contain the time of compression."""
    packed = isinstance(val, bytes) and val.startswith(b"\x1f\x8b")
    return f"{argname}-packed" if packed else None


# Tests that train, export, build images or start servers; all others are marked `unit`.
SLOW_PLACES = (
    "augment",
    "benchmarks",
    "bundle",
    "cli/test_bundle_commands.py",
    "contract/test_reference_defects.py",
    "deploy",
    "distill",
    "evaluation/test_latency.py",
    "evaluation/test_many_classes.py",
    "examples",
    "export",
    "golden",
    "models/test_classifier.py",
    "pipeline",
    "predict",
    "runtime/test_ranks.py",
    "serving",
    "teacher",
    "test_pipeline.py",
    "test_store_processes.py",
    "training",
)
SLOW_FIXTURES = {"forks", "line", "trained_folder"}
TESTS = Path(__file__).parent


def _in_slow_place(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / place) for place in SLOW_PLACES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m unit` does not import slow test modules, which would load the build stack."""
    return True if config.option.markexpr == "unit" and _in_slow_place(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast tests."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        excluded = {marker.name for marker in item.iter_markers()} & {"slow", "gpu", "network"}
        if not (_in_slow_place(item.path) or fixtures & SLOW_FIXTURES or excluded):
            item.add_marker("unit")


if TYPE_CHECKING:  # torch is imported only by tests that use a model
    from helpers.edge_bundles import Edge
    from helpers.forked import Forks
    from helpers.pipeline_run import Line

    from factory.data.dataset import Dataset
    from factory.models.classifier import TorchClassifier


class NetworkBlocked(Exception):
    """A test without the marker `network` tried to connect to another machine."""


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets connect to this machine only, unless the test is marked network.

    The error is not an OSError, so that code that handles failed connections does not hide it.
    """
    if request.node.get_closest_marker("network"):
        return
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, _only_loopback(getattr(socket.socket, name)))
    resolve = socket.getaddrinfo

    def resolve_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        _refuse_other(host)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_loopback)


def _only_loopback(original: Any) -> Any:
    def checked(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if isinstance(address, tuple):  # AF_INET, AF_INET6; a unix socket's is a path
            _refuse_other(address[0])
        return original(self, *arguments)

    return checked


def _refuse_other(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkBlocked(f"a test that is not marked network tried to reach {name}")


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """A learnable data set of three classes."""
    from helpers.tiny_models import tiny_dataset

    return tiny_dataset()


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A folder with a tiny BERT that has learned `dataset`; no test may change it."""
    from helpers.tiny_models import save_trained

    return save_trained(tmp_path_factory.mktemp("models") / "trained", dataset)


@pytest.fixture
def teacher(trained_folder: Path) -> TorchClassifier:
    """The learned tiny BERT, opened anew for every test."""
    from helpers.tiny_models import open_tiny

    return open_tiny(trained_folder)


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, forks: Forks) -> Line:
    """One uninterrupted `factory run` of a tiny recipe; no test may change its folder."""
    from helpers.pipeline_run import run_line

    return run_line(tmp_path_factory.mktemp("line"), dataset, forks)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Forks processes that share one start-up."""
    from helpers.forked import fork_server

    with fork_server(tmp_path_factory.mktemp("forks")) as forks:
        yield forks


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Edge]:
    """A bundle by its kind: single, pair, multilabel or regression; no test may change it."""
    from helpers.edge_bundles import export_edge_student, write_edge_bundle
    from helpers.tiny_models import LABELS

    directory = tmp_path_factory.mktemp("edge")
    students: dict[tuple[str, ...], tuple[Path, Path]] = {}
    made: dict[str, Edge] = {}

    def bundle(kind: str) -> Edge:
        labels = ("value",) if kind == "regression" else LABELS
        if labels not in students:
            students[labels] = export_edge_student(directory / str(len(labels)), labels)
        if kind not in made:
            student, exported = students[labels]
            made[kind] = write_edge_bundle(directory / kind, kind, exported, student)
        return made[kind]

    return bundle
