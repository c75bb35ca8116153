"""Making the artifact of one stage: messages, resuming, and waiting for other ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree

from factory.errors import StoreError
from factory.recipe.file import parse_recipe
from factory.runtime import distributed, progress
from factory.runtime.distributed import Rank
from factory.stages import build, distill
from factory.stages.sources import Sources
from factory.stages.stage import Run, Stage
from factory.store import ArtifactKey, Store

KEY = ArtifactKey("distill", 1, {}, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    progress.set_quiet(False)  # another test may have called the command line with --quiet
    sources = Sources(None, None, None, None, None, None, None)
    return Run(parse_recipe(recipe_tree()), tmp_path, sources, "cpu", {"distill": KEY})


def stage_of(calls: list[Path], *, on_every_rank: bool) -> Stage:
    def make(output: Path, run: Run) -> dict[str, Any]:
        calls.append(output)
        if len(calls) == 1:
            (output / "half").touch()
            raise KeyError("power cut")
        return {"found": sorted(path.name for path in output.iterdir())}

    return replace(distill.STAGE, make=make, on_every_rank=on_every_rank)


@pytest.mark.parametrize("on_every_rank", [True, False])
def test_a_stage_is_made_once_and_resumes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], on_every_rank: bool
) -> None:
    store, calls = Store(tmp_path / "runs"), []
    stage = stage_of(calls, on_every_rank=on_every_rank)
    with pytest.raises(KeyError):
        build.build_stage(store, stage, run)
    artifact = build.build_stage(store, stage, run)
    assert artifact.facts == {"found": ["half"]}
    assert build.build_stage(store, stage, run) == artifact
    assert calls == [store.partial(KEY)] * 2
    words = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert words == ["running", "resuming", "cached"]


def test_another_rank_does_not_wait_forever_for_a_store_it_cannot_see(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "current", lambda: Rank(1, 2, 0))
    monkeypatch.setattr(distributed, "on_main_process", lambda compute: "run")
    monkeypatch.setattr(build, "SECONDS_UNTIL_SEEN", 0.0)
    stage = stage_of([], on_every_rank=True)
    with pytest.raises(StoreError, match="not visible to this rank; give --store a directory"):
        build.build_stage(Store(tmp_path / "runs"), stage, run)
