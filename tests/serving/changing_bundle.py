"""A link that points at one of two bundles, and clients who see which of them answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
from helpers.tiny_bundle import CLASSES, write_tiny_bundle

from serving.bundle import write_manifest

OTHER = ("no", "maybe", "yes")
LABELS = {"0123456789ab": set(CLASSES), "ba9876543210": set(OTHER)}


def two_bundles(directory: Path) -> Path:
    """A link to the bundle `one`, beside the bundle `two`, which has other labels."""
    write_tiny_bundle(directory / "one")
    other = write_tiny_bundle(directory / "two", labels=OTHER)
    write_manifest(directory / "two", msgspec.structs.replace(other, version="ba9876543210"))
    (directory / "bundle").symlink_to("one")
    return directory / "bundle"


def point(link: Path, target: str) -> None:
    """Make the link point elsewhere, in one step."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


class Load:
    """What clients got who asked without pause."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.failures: list[object] = []

    def ask(self, url: str, end: threading.Event) -> None:
        """Ask until the end, and check that one bundle answered the whole request."""
        with httpx.Client(timeout=20) as client:
            while not end.is_set():
                try:
                    answer = client.post(f"{url}/predict", json={"texts": ["good film", "bad"]})
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    continue
                body = answer.json()
                if answer.status_code != 200:
                    self.failures.append(body)
                    continue
                version = body["model"]["version"]
                named = [{item["label"] for item in one["scores"]} for one in body["predictions"]]
                if named != [LABELS[version]] * 2:
                    self.failures.append(body)
                self.versions.append(version)


@contextmanager
def load(url: str, clients: int = 2) -> Iterator[Load]:
    """Clients that ask as long as the block runs."""
    asked, end = Load(), threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(asked.ask, url, end) for _ in range(clients)]
        try:
            yield asked
        finally:
            end.set()
        for one in asking:
            one.result()
