"""What a CI cache of a store needs to know, from `factory plan RECIPE --json` on stdin.

    factory plan recipe.toml --json | python store_cache.py keys
    factory plan recipe.toml --json | python store_cache.py prune runs

`keys` prints NAME=VALUE lines for $GITHUB_OUTPUT or a dotenv file. The keys go from exact to
coarse: a cache of the same bundle, else of the same student (a threshold changed), else of the same
teacher (the student's settings changed). `prune` removes the stages that this recipe does not use,
so that the cache does not grow.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

DIGITS = 12


def keys(plan: list[dict[str, Any]]) -> dict[str, str]:
    """Cache keys, each the beginning of the one before it."""
    prints = {stage["stage"]: stage["fingerprint"][:DIGITS] for stage in plan}
    teacher = f"factory-{prints['teacher']}"
    student = f"{teacher}-{prints['distill']}"
    return {"exact": f"{student}-{prints['bundle']}", "student": student, "teacher": teacher}


def prune(plan: list[dict[str, Any]], store: Path) -> list[Path]:
    """Remove the stage directories of a store that the plan does not name."""
    used = {stage["directory"] for stage in plan}
    used |= {f"{name}.partial" for name in used}
    stages = [path for path in store.glob("*-*") if path.is_dir() and path.name not in used]
    for stage in stages:
        shutil.rmtree(stage)
    return stages


def main() -> None:
    plan = json.load(sys.stdin)
    if sys.argv[1:] == ["keys"]:
        for name, value in keys(plan).items():
            print(f"{name}={value}")
    elif len(sys.argv) == 3 and sys.argv[1] == "prune":
        for stage in prune(plan, Path(sys.argv[2])):
            print(f"removed {stage}", file=sys.stderr)
    else:
        raise SystemExit("usage: store_cache.py keys | store_cache.py prune STORE")


if __name__ == "__main__":
    main()
