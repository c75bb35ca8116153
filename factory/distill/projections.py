"""The width projections of a general student, beside its weights on disk."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from factory.errors import RecipeError, first_line
from factory.models.source import ModelSource
from factory.runtime.progress import say

FILE_NAME = "projections.safetensors"


def save_projections(projections: nn.ModuleList, directory: Path) -> None:
    """Write weight and bias of each projection: `0.weight`, `0.bias` (embedding output), ..."""
    from safetensors.torch import save_file

    tensors = {name: value.cpu().contiguous() for name, value in projections.state_dict().items()}
    save_file(tensors, directory / FILE_NAME)


def load_projections(projections: nn.ModuleList, source: ModelSource) -> bool:
    """Start the projections where those beside a checkpoint ended; says so when they do not fit.

    Returns:
        Whether they were taken; False, too, where the checkpoint has none.

    Raises:
        RecipeError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(source.location) / FILE_NAME
    if not file.is_file():
        return False
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise RecipeError("student.start", [f"{file}: damaged ({first_line(error)})"]) from error
    wanted = projections.state_dict()
    if {name: value.shape for name, value in found.items()} != {
        name: value.shape for name, value in wanted.items()
    }:
        theirs = found["0.weight"].shape[0] if "0.weight" in found else "unknown"
        say(
            f"{file}: made for a teacher {theirs} wide, this one is {wanted['0.weight'].shape[0]}; "
            "the width projections start new"
        )
        return False
    projections.load_state_dict(found)
    return True
