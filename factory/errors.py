"""The exceptions of the product with their exit codes, and recognition of failed writes."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_GATE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch.save's messages when its stream breaks; they leave out the system's reason.
TORCH_SAVE = ("PytorchStreamWriter failed", "iostream error", "unexpected pos")
LEAST_FREE_BYTES = 2**20


SHOWN_NAMES = 20


def short_list(names: Sequence[str]) -> str:
    """The first names in quotation marks, and the number of the others."""
    shown = ", ".join(repr(name) for name in names[:SHOWN_NAMES])
    hidden = len(names) - SHOWN_NAMES
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def first_line(error: Exception) -> str:
    """The first line of an error message, or the error's type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class FactoryError(Exception):
    """An error with a message for the user: what is wrong, where, what to do."""

    exit_code = EXIT_ERROR


class ProblemsError(FactoryError):
    """Several problems, reported together, one line each."""

    def __init__(self, headline: str, problems: Sequence[str]) -> None:
        self.headline = headline
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{headline}:", *(f"  - {line}" for line in problems)]))


class RecipeError(ProblemsError):
    """The recipe or an override is invalid."""

    exit_code = EXIT_USAGE


class DataError(ProblemsError):
    """The data is not usable for training."""


class TeacherError(FactoryError):
    """The teacher cannot be loaded, or is not better than chance."""


class TrainingError(FactoryError):
    """Training diverged or produced an unusable model."""


class StoreError(FactoryError):
    """A directory of the store is missing, damaged, or in use."""


class ProcessesError(FactoryError):
    """A group of processes cannot work together."""


class ParityError(FactoryError):
    """An exported model and its source compute different outputs."""


class VocabularyError(FactoryError):
    """A student's vocabulary cannot be trimmed."""


class TextModelError(FactoryError):
    """A bundle's tokenizer cannot be converted to ONNX operators."""


class PackageError(FactoryError):
    """A bundle cannot be packaged in another format."""


class PublishError(FactoryError):
    """A bundle cannot be published."""


class ComparisonError(FactoryError):
    """Two bundles cannot be compared."""


class TrackingError(FactoryError):
    """A requested tracker cannot be started."""


class MissingDependencyError(FactoryError):
    """A required optional package is not installed."""


class GateFailedError(ProblemsError):
    """A gate failed; nothing is published.

    Args:
        verdicts: facts of each rule, by gate and by the model it was applied to.
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


def write_failure(error: BaseException, directory: Path) -> str | None:
    """Why writing below `directory` failed, or None if `error` has another cause.

    Several libraries write in native code and raise errors that are not OSErrors; some fail only
    when they read back what they could not write.
    """
    import shutil  # loads every compression module, which --help does not need

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in OUT_OF_SPACE:
            return os.strerror(link.errno)
        text = str(link)
        native = re.search(r"\(os error (\d+)\)", text)  # safetensors
        if native and int(native.group(1)) in OUT_OF_SPACE:
            return os.strerror(int(native.group(1)))
        if isinstance(link, RuntimeError) and any(words in text for words in TORCH_SAVE):
            return "a file could not be written completely"
        link = link.__cause__ or link.__context__
    # our own errors state their cause; for others, a full disk is the likely one
    if not isinstance(error, FactoryError) and shutil.disk_usage(directory).free < LEAST_FREE_BYTES:
        return os.strerror(errno.ENOSPC)
    return None
