"""What can go wrong while serving; every message says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class ServingError(Exception):
    """A failure with a message for the user that never contains the text being classified."""


class BundleError(ServingError):
    """A bundle that cannot be trusted or used.

    Args:
        where: the file or directory looked at.
        problems: one line per problem; never empty.
        remedy: what the user can do.
    """

    def __init__(self, where: object, problems: Sequence[str], remedy: str) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"{where}: {self.problems[0]}; {remedy}"
        else:
            listed = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{where}: {len(self.problems)} problems; {remedy}{listed}"
        super().__init__(text)


class InputError(ServingError, ValueError):
    """An input this model cannot take; the caller's mistake."""


class InferenceError(ServingError):
    """The model failed on an input, or answered something that is not a number."""


class ProviderError(ServingError):
    """The execution provider asked for is not the one that would run."""


class MissingDependencyError(ServingError, ImportError):
    """A part of the installation is needed and absent."""


class StartError(ServingError):
    """The server cannot start listening."""


class SettingsError(ServingError):
    """The SERVING_* variables cannot be used.

    Args:
        problems: one line per problem; never empty.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))
