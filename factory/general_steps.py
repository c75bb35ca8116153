"""The two stages of general distillation with their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.data.corpus.reading import corpus_identity
from factory.errors import RecipeError
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe
from factory.store import Step

# Raised by hand when a stage's code makes something else from the same inputs.
CORPUS_VERSION = 1
GENERAL_VERSION = 1

READING = {"documents", "text", "max_tokens", "max_length"}
SOURCE = {"corpus", "hub", "config", "revision", "split"}


@dataclass(frozen=True, slots=True)
class GeneralSteps:
    """From raw text to a general student; neither stage knows of any task."""

    corpus: Step
    general: Step

    def steps(self) -> tuple[Step, Step]:
        """The stages in the order they run."""
        return self.corpus, self.general


def make_general_steps(
    recipe: Recipe, teacher: ModelSource, corpus: Mapping[str, object]
) -> GeneralSteps:
    """Fingerprint both stages: of the recipe they read the student's shape and the layer map.

    Args:
        teacher: the base teacher, as it is before any fine-tuning.
    """
    assert recipe.general is not None, "checked by the recipe"
    settings = recipe.general.model_dump(mode="json")
    corpus_step = Step(
        "corpus",
        CORPUS_VERSION,
        {
            "general": {key: settings[key] for key in sorted(READING)},
            "source": corpus,
            "model": teacher.identity,
        },
        {},
    )
    general_step = Step(
        "general",
        GENERAL_VERSION,
        {
            "general": {k: v for k, v in settings.items() if k not in READING | SOURCE},
            "student": recipe.student.model_dump(mode="json", exclude={"start", "revision"}),
            "distill": {"layer_map": recipe.distill.layer_map},
            "model": teacher.identity,
        },
        {"corpus": corpus_step.fingerprint},
    )
    return GeneralSteps(corpus_step, general_step)


def find_general_steps(recipe: Recipe, base_directory: Path) -> tuple[GeneralSteps, ModelSource]:
    """The stages of `factory general`, and the base teacher.

    Raises:
        RecipeError, DataError: no section [general], or its corpus or the teacher is not there.
    """
    if recipe.general is None:
        raise RecipeError("general", ["this recipe has no section [general] with a corpus"])
    model, revision = recipe.teacher.model, recipe.teacher.revision
    teacher = find_model(model, base_directory, "teacher.model", revision)
    identity = corpus_identity(recipe.general, base_directory)
    return make_general_steps(recipe, teacher, identity), teacher
