"""What can go wrong, as exceptions that know their exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_GATE = 3


def short_list(names: Sequence[str]) -> str:
    """The first six of many names, and how many there are."""
    shown = ", ".join(names[:6])
    return f"[{shown}]" if len(names) <= 6 else f"[{shown}, ... {len(names)} in all]"


def first_line(error: Exception) -> str:
    """The first line of a library's message, or the error's type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class FactoryError(Exception):
    """A failure with a message for the user: what is wrong, where, and what to do."""

    exit_code = EXIT_ERROR


class ProblemsError(FactoryError):
    """Several problems found together, each one line.

    Args:
        headline: what was being looked at.
        problems: one line per problem; never empty.
    """

    def __init__(self, headline: str, problems: Sequence[str]) -> None:
        self.headline = headline
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{headline}:", *(f"  - {line}" for line in problems)]))


class RecipeError(ProblemsError):
    """The recipe, or an override of it, cannot be used."""

    exit_code = EXIT_USAGE


class DataError(ProblemsError):
    """The data cannot be trained on as it is."""


class TeacherError(FactoryError):
    """The teacher cannot be loaded, or is not fit to teach."""


class TrainingError(FactoryError):
    """Training diverged or left a model that cannot be used."""


class StoreError(FactoryError):
    """A directory of the store is missing, broken, or in use."""


class ProcessesError(FactoryError):
    """The processes started together cannot work together."""


class ParityError(FactoryError):
    """An exported model does not compute what the model it came from computes."""


class VocabularyError(FactoryError):
    """A student's vocabulary cannot be cut down."""


class TextModelError(FactoryError):
    """A bundle's tokenizer cannot be put into its graph."""


class PackageError(FactoryError):
    """A bundle cannot be put into another form."""


class PublishError(FactoryError):
    """A bundle cannot be published."""


class ComparisonError(FactoryError):
    """Two bundles cannot be compared."""


class TrackingError(FactoryError):
    """A tracker that was asked for does not start."""


class MissingDependencyError(FactoryError):
    """An optional part of the installation is needed and absent."""


class GateFailedError(ProblemsError):
    """A gate said no; nothing is published.

    Args:
        verdicts: by gate and what it judged, the facts of each rule.
    """

    exit_code = EXIT_GATE

    def __init__(
        self,
        headline: str,
        problems: Sequence[str],
        verdicts: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.verdicts = dict(verdicts or {})
        super().__init__(headline, problems)


class PredictError(FactoryError):
    """A file cannot be scored, or its scores cannot be written."""
