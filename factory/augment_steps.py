"""The two stages of data augmentation with their fingerprints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.data.messages import missing_file
from factory.errors import RecipeError
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe
from factory.store import Step
from serving.bundle import sha256_file

# Raised by hand when a stage's code makes something else from the same inputs.
MLM_VERSION = 1
AUGMENT_VERSION = 1

TRAINED = "trained"


@dataclass(frozen=True, slots=True)
class AugmentSources:
    """Who proposes words.

    Args:
        mlm: the checkpoint with a masked-language-model head, when the recipe names one.
        mlm_start: the BERT that one is trained from, when the recipe asks for that.
        vectors: the file of word vectors.
    """

    mlm: ModelSource | None
    mlm_start: ModelSource | None
    vectors: Path | None


@dataclass(frozen=True, slots=True)
class AugmentSteps:
    """From training rows to variants of them; `mlm` is there when the recipe has one trained."""

    mlm: Step | None
    augment: Step
    sources: AugmentSources

    def steps(self) -> list[Step]:
        """The stages in the order they run."""
        return [step for step in (self.mlm, self.augment) if step is not None]


def find_augment_sources(
    recipe: Recipe, base_directory: Path, teacher: ModelSource
) -> AugmentSources | None:
    """Look for what proposes words; None for a recipe without augmentation.

    Raises:
        RecipeError: a model or file that is not there; all of them together.
    """
    settings = recipe.augment
    if settings is None:
        return None
    vectors = None
    if settings.vectors is not None:
        vectors = base_directory / settings.vectors
        if not vectors.is_file():
            problem = missing_file("augment.vectors", settings.vectors, vectors)
            raise RecipeError("augment.vectors", [problem])
    if settings.mlm == TRAINED:
        return AugmentSources(None, find_mlm_start(recipe, base_directory, teacher), vectors)
    mlm = None
    if settings.mlm is not None:
        mlm = find_model(settings.mlm, base_directory, "augment.mlm", settings.mlm_revision)
    return AugmentSources(mlm, None, vectors)


def find_mlm_start(recipe: Recipe, base_directory: Path, teacher: ModelSource) -> ModelSource:
    """The BERT a masked language model is trained from.

    Raises:
        RecipeError: it is not there.
    """
    if recipe.mlm.model is None:
        return teacher
    return find_model(recipe.mlm.model, base_directory, "mlm.model", recipe.mlm.revision)


def make_mlm_step(recipe: Recipe, source: ModelSource, data: Step, unlabelled: Step | None) -> Step:
    """Fingerprint the training of a masked language model on the recipe's text."""
    inputs = {"data": data.fingerprint}
    if unlabelled is not None:
        inputs["unlabelled"] = unlabelled.fingerprint
    settings = {
        "mlm": recipe.mlm.model_dump(mode="json", exclude={"model", "revision"}),
        "data": {"max_length": recipe.data.max_length},
        "model": source.identity,
    }
    return Step("mlm", MLM_VERSION, settings, inputs)


def make_augment_steps(
    recipe: Recipe,
    sources: AugmentSources,
    teacher_source: ModelSource,
    data: Step,
    unlabelled: Step | None,
    teacher: Step,
) -> AugmentSteps:
    """Fingerprint both stages.

    Words are looked up in the teacher's embeddings as they are before any fine-tuning, so the
    variants depend on the fine-tuned teacher only where it filters them.
    """
    settings = recipe.augment
    assert settings is not None, "sources were found"
    inputs = {"data": data.fingerprint}
    mlm = None
    if sources.mlm_start is not None:
        mlm = make_mlm_step(recipe, sources.mlm_start, data, unlabelled)
        inputs["mlm"] = mlm.fingerprint
    if settings.filter == "teacher":
        inputs["teacher"] = teacher.fingerprint
    chosen = settings.model_dump(mode="json", exclude={"mlm", "mlm_revision", "vectors"})
    step = Step(
        "augment",
        AUGMENT_VERSION,
        {
            "augment": {**chosen, "sources": list(settings.source_order)},
            "data": {"max_length": recipe.data.max_length},
            "model": teacher_source.identity,
            "mlm": None if sources.mlm is None else sources.mlm.identity,
            "vectors": None if sources.vectors is None else sha256_file(sources.vectors),
        },
        inputs,
    )
    return AugmentSteps(mlm, step, sources)
