"""How the training libraries behave inside our process."""

from __future__ import annotations

import os


def prepare_libraries() -> None:
    """Quiet the libraries' own bars and notes, and keep them from sending usage data.

    Called before they are first imported; settings the user made in the environment stay.
    """
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
    ):
        os.environ.setdefault(name, value)
