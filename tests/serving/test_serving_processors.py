"""How many processors a process may use, by made-up cgroup trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.processors import allowed_processors
from serving.settings import Settings


@pytest.fixture(autouse=True)
def _eight_by_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def tree(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A file system with a /proc/self/cgroup and some files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "2000000 100000"}, 8),
        # the least of the group's own and its ancestors' counts
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "cpu.max": "300000 100000"}, 3),
        # the host's path, which a container does not see
        ("0::/docker/abc\n", {"cpu.max": "300000 100000"}, 3),
        # version 1
        (
            "4:memory:/\n3:cpu,cpuacct:/pod\n",
            {"cpu/pod/cpu.cfs_quota_us": "500000", "cpu/pod/cpu.cfs_period_us": "100000"},
            5,
        ),
        (
            "3:cpuacct,cpu:/docker/abc\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("1:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}, 8),
    ],
)
def test_the_least_of_affinity_and_quotas(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: int
) -> None:
    assert allowed_processors(tree(tmp_path, cgroup, files)) == expected


def test_threads_share_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.allowed_processors", lambda: 6)
    assert Settings().inference_threads == 6
    assert Settings(workers=4).inference_threads == 1
    assert Settings(workers=9).inference_threads == 1
    assert Settings(threads=3, workers=2).inference_threads == 3
    assert Settings(provider="cuda").inference_threads == 1


def test_this_machine_can_be_asked() -> None:
    assert 1 <= allowed_processors() <= 8
