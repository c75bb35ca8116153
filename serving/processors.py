"""How many processors this process may use: its affinity and its cgroups' quota."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def allowed_processors(root: Path = Path("/")) -> int:
    """Whole processors, at least one; never those of the host that a container may not use.

    Args:
        root: where proc and sys are mounted.

    Source: cgroups(7): cpu.max of version 2, cpu.cfs_quota_us of version 1.
    """
    # systems without affinity have no cgroups either
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return max(1, int(min([len(affinity(0)), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The processors each cgroup of this process grants, its ancestors' included."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / "cpu" if controllers else mount
        # inside a container the path may be the host's, which is not mounted: then top is ours
        place = top / path.lstrip("/")
        for group in (place, *place.parents):
            if not group.is_relative_to(top):
                break
            if controllers:
                told = [_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                told = _read(group / "cpu.max").split()
            if len(told) == 2 and told[0].isdigit() and told[1].isdigit():
                yield int(told[0]) / int(told[1])


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
