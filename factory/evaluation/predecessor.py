"""The bundle that a new one is to replace: found by its recipe, judged on the gate's own rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.errors import RecipeError
from factory.export.forms import FormName
from factory.recipe.recipe import Recipe
from serving.bundle import MANIFEST_NAME, Manifest, read_manifest, sha256_file
from serving.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from factory.data.dataset import Dataset
    from factory.evaluation.significance import Difference

KEY = "gate.predecessor"


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A bundle that stands where the recipe says.

    Args:
        identity: SHA-256 of its manifest, which has the hashes of all its files.
    """

    directory: Path
    identity: str


def find_predecessor(recipe: Recipe, base_directory: Path) -> Predecessor | None:
    """The recipe's predecessor, without opening its model; None when it names none.

    Raises:
        RecipeError: there is no bundle, or one of another task.
    """
    name = recipe.gate.predecessor
    if name is None:
        return None
    directory = base_directory / name
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        raise RecipeError(KEY, [str(error)]) from error
    if _kind(manifest) != (recipe.data.task, len(recipe.data.text_columns) == 2):
        pairs = " of pairs" if manifest.text_pair else " of single texts"
        problem = (
            f"{directory} is a bundle for {manifest.task}{pairs}, this recipe is for something "
            "else; name a bundle that does the same"
        )
        raise RecipeError(KEY, [problem])
    return Predecessor(directory, sha256_file(directory / MANIFEST_NAME))


@dataclass(frozen=True, slots=True)
class Opponent:
    """A predecessor that answered the rows of the gate's split."""

    manifest: Manifest
    against: Callable[[NDArray[Any]], Difference]

    def facts(self, candidates: Mapping[FormName, Difference]) -> dict[str, Any]:
        """Who it is, and how each candidate did against it, as JSON data."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "served": self.manifest.model.variant,
            "candidates": {str(name): one.facts() for name, one in candidates.items()},
        }


def open_opponent(
    predecessor: Predecessor | None, recipe: Recipe, dataset: Dataset
) -> Opponent | None:
    """Let the predecessor answer the split of the gate.

    Raises:
        BundleError: it is broken.
    """
    if predecessor is None:
        return None
    from factory.evaluation.answers import answer_rows, shared_labels, target_rows
    from factory.evaluation.significance import difference
    from serving.predictor import Predictor

    predictor = Predictor.open(predecessor.directory)
    split = {split.name: split for split in dataset.splits()}[recipe.gate.split]
    labels = shared_labels(dataset.labels, predictor.labels)
    targets = target_rows(split, dataset.task, labels)
    old = answer_rows(predictor, split, labels, "predecessor")
    positive = _positive(recipe, dataset)

    def against(predicted: NDArray[Any]) -> Difference:
        new = _widen(predicted, targets)
        return difference(recipe.metric, dataset.task, targets, old, new, positive)

    return Opponent(predictor.manifest, against)


def _widen(predicted: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Predictions for the data set's own labels, with columns for labels only others have."""
    import numpy as np

    if predicted.ndim == 1 or predicted.shape == targets.shape:
        return predicted
    wide = np.zeros_like(targets)
    wide[:, : predicted.shape[1]] = predicted
    return wide


def _positive(recipe: Recipe, dataset: Dataset) -> int | None:
    if dataset.task != "classification" or len(dataset.labels) != 2:
        return None
    label = recipe.gate.positive_label
    return dataset.labels.index(label) if label in dataset.labels else 1


def _kind(manifest: Manifest) -> tuple[str, bool]:
    return manifest.task, manifest.text_pair
