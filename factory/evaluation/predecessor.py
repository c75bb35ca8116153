"""The bundle that a new one replaces: found by the recipe, scored on the gate's split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.errors import RecipeError
from factory.recipe.recipe import Recipe
from serving.bundle import MANIFEST_NAME, Manifest, read_manifest, sha256_file
from serving.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from factory.data.dataset import Dataset, Split
    from factory.evaluation.significance import Difference
    from factory.export.forms import FormName
    from serving.bundle import Task
    from serving.predictor import Predictor

KEY = "gate.predecessor"


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The bundle that `gate.predecessor` names.

    Args:
        identity: SHA-256 of its manifest, which has the hashes of all its files.
    """

    directory: Path
    identity: str


def find_predecessor(recipe: Recipe, base_directory: Path) -> Predecessor | None:
    """The recipe's predecessor, without opening its model; None if the recipe names none.

    Raises:
        RecipeError: there is no bundle, or it is for another task.
    """
    name = recipe.gate.predecessor
    if name is None:
        return None
    directory = base_directory / name
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        raise RecipeError(KEY, [str(error)]) from error
    takes_pairs = len(recipe.data.text_columns) == 2
    if (manifest.task, manifest.text_pair) != (recipe.data.task, takes_pairs):
        texts = "pairs" if manifest.text_pair else "single texts"
        problem = (
            f"{directory} is a bundle for {manifest.task} of {texts}, unlike the bundle of this "
            "recipe; name a bundle for the same task"
        )
        raise RecipeError(KEY, [problem])
    return Predecessor(directory, sha256_file(directory / MANIFEST_NAME))


@dataclass(frozen=True, slots=True)
class PredecessorScores:
    """A predecessor's predictions on the gate's split.

    Shapes:
        targets, predicted: (rows,) class numbers or values; (rows, labels) booleans for multilabel
    """

    manifest: Manifest
    task: Task
    metric: str
    targets: NDArray[Any]
    predicted: NDArray[Any]
    positive: int | None

    def difference(self, predicted: NDArray[Any]) -> Difference:
        """The gate's metric of a new model compared with the predecessor's.

        Args:
            predicted: by the new model, on the same rows and in the data set's order of labels.
        """
        from factory.evaluation.significance import difference

        new = predicted
        if predicted.ndim == 2:  # the predecessor may have labels that the data set lacks
            new = _in_columns(predicted, range(predicted.shape[1]), self.targets.shape[1])
        return difference(self.metric, self.task, self.targets, self.predicted, new, self.positive)

    def to_facts(self, differences: Mapping[FormName, Difference]) -> dict[str, Any]:
        """The predecessor, and each new form's difference from it, as JSON data."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "served": self.manifest.model.form,
            "candidates": {str(name): one.to_facts() for name, one in differences.items()},
        }


def score_predecessor(
    predecessor: Predecessor | None, recipe: Recipe, dataset: Dataset
) -> PredecessorScores | None:
    """Run the predecessor on the gate's split; None without a predecessor.

    Raises:
        BundleError: the bundle is broken.
    """
    if predecessor is None:
        return None
    from factory.evaluation.metrics import positive_class
    from factory.models.tasks import TASKS
    from serving.predictor import Predictor

    predictor = Predictor.open(predecessor.directory)
    split = {split.name: split for split in dataset.splits()}[recipe.gate.split]
    labels = shared_labels(dataset.labels, predictor.labels)
    return PredecessorScores(
        predictor.manifest,
        dataset.task,
        recipe.metric,
        TASKS[dataset.task].targets(split, len(labels)),
        predict_rows(predictor, split, labels, "predecessor"),
        positive_class(dataset.labels, recipe.gate.positive_label),
    )


def shared_labels(labels: Sequence[str], *others: Sequence[str]) -> tuple[str, ...]:
    """The labels in their order, then other labels."""
    return tuple(dict.fromkeys([*labels, *(label for more in others for label in more)]))


def predict_rows(
    predictor: Predictor, split: Split, labels: Sequence[str], name: str
) -> NDArray[Any]:
    """A bundle's predictions through the server's code, with class numbers that index `labels`.

    Args:
        labels: all of the bundle's labels, and maybe others.
        name: for the progress bar.

    Shapes:
        returns: (rows,) class numbers or values; (rows, labels) booleans for multilabel

    Raises:
        InputError: the bundle takes pairs and the split has single texts, or the reverse.
    """
    import numpy as np

    from factory.evaluation.thresholds import Thresholds
    from factory.models.classifier import logits_with_bar
    from factory.models.tasks import TASKS

    logits = logits_with_bar(predictor, split.inputs(), f"{name} on {split.name}")
    task, values = TASKS[predictor.task], predictor.thresholds
    predicted = task.predict(logits, None if values is None else Thresholds(values, "the bundle's"))
    if not task.traits.has_labels:
        return predicted
    own = [labels.index(label) for label in predictor.labels]
    if predicted.ndim == 1:
        return np.array(own)[predicted]
    return _in_columns(predicted, own, len(labels))


def _in_columns(predicted: NDArray[Any], columns: Sequence[int], width: int) -> NDArray[Any]:
    """Sets of labels in the given columns of a wider array, False in the others."""
    import numpy as np

    wide = np.zeros((len(predicted), width), dtype=np.bool_)
    wide[:, list(columns)] = predicted
    return wide
