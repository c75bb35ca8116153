"""The type `Stage`, and `Run`, the input of every stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.data.dataset import Dataset, read_dataset
from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.store import Artifact, ArtifactKey

if TYPE_CHECKING:
    from factory.distill.transfer_set import AugmentedRows, Inputs
    from factory.models.classifier import TorchClassifier

Facts = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a recipe: the input of every stage.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        device: auto, cpu or cuda; changes speed, not the result.
        keys: of every stage of the run, by name.
        artifacts: of the stages finished so far, by name.
    """

    recipe: Recipe
    base_directory: Path
    sources: Sources
    device: str
    keys: Mapping[str, ArtifactKey]
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @cached_property
    def dataset(self) -> Dataset:
        """The labelled splits."""
        return read_dataset(self.artifacts["data"].directory)

    @property
    def models(self) -> dict[str, Artifact]:
        """The models to score: teacher, student, and the others that the recipe requests."""
        return {model: self.artifacts[stage] for model, stage in model_stages(self.recipe).items()}

    @property
    def student(self) -> Artifact:
        """The distilled student, pruned if the recipe requests it."""
        return self.artifacts[model_stages(self.recipe)["student"]]

    @property
    def shipped(self) -> Artifact:
        """The student that is exported."""
        return self.artifacts.get("trim") or self.student

    def unlabelled(self) -> Inputs | None:
        """The texts without labels, if the recipe names any."""
        from factory.data.unlabelled import read_unlabelled

        made = self.artifacts.get("unlabelled")
        return None if made is None else read_unlabelled(made.directory)

    def augmented(self) -> AugmentedRows | None:
        """The augmented rows, if the recipe requests them."""
        from factory.augment.shards import read_augmented
        from factory.distill.transfer_set import AugmentedRows

        made = self.artifacts.get("augment")
        if made is None:
            return None
        inputs, source_rows = read_augmented(made.directory)
        return AugmentedRows(inputs, source_rows)

    def open_model(self, artifact: Artifact, device: str | None = None) -> TorchClassifier:
        """Open the model of an artifact as a classifier.

        Args:
            device: overrides the run's device.
        """
        from factory.models.classifier import load_torch_classifier
        from factory.runtime.distributed import pick_device

        chosen = pick_device(device or self.device)
        return load_torch_classifier(
            artifact.directory / "model", self.recipe.data.max_length, chosen
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """One step from the recipe to the bundle, with a directory of its own in the store.

    Args:
        version: raise it when the stage's code writes other bytes from the same inputs.
        inputs: names of the stages it reads; those that the recipe does not need are left out.
        settings: exactly what decides its bytes besides the inputs, as JSON data.
        make: writes into the given directory, which may hold files of an interrupted run, and
            returns facts to record. Heavy imports happen inside.
        wanted: whether the recipe needs it.
        check: raises if the run must stop, also with a cached artifact.
        on_every_rank: runs on every process of a distributed run; else on rank 0 alone.
    """

    name: str
    version: int
    inputs: Callable[[Recipe], tuple[str, ...]]
    settings: Callable[[Recipe, Sources], Mapping[str, Any]]
    make: Callable[[Path, Run], Facts]
    wanted: Callable[[Recipe], bool] = lambda recipe: True
    check: Callable[[Run], None] = lambda run: None
    on_every_rank: bool = False


def model_stages(recipe: Recipe) -> dict[str, str]:
    """The stage that makes each of the models to score.

    A pruned student replaces the one it was made from, which is scored as "unpruned".
    """
    stages = {"teacher": "teacher", "student": "distill"}
    if recipe.prune is not None:
        stages |= {"student": "prune", "unpruned": "distill"}
    if recipe.distill.baseline != "off":
        stages["baseline"] = "baseline"
    return stages


def section(recipe: Recipe, name: str, *without: str) -> dict[str, Any]:
    """A section of the recipe as JSON data, except some keys."""
    settings = getattr(recipe, name).model_dump(mode="json")
    return {key: value for key, value in settings.items() if key not in without}
