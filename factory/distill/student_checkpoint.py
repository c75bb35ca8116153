"""Width projections and classifier of a student's checkpoint.

General students of this product have the projections in a separate file; the public ones have them
among the weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from factory.errors import RecipeError, first_line, short_list
from factory.models.source import ModelSource
from factory.runtime.progress import say

# One projection per layer (TinyBERT's second version), or one for all layers (its first).
PROJECTION = re.compile(r"(?:^|\.)fit_dense(?:s\.(?P<layer>\d+))?\.(?P<part>weight|bias)$")
SHARED = -1
FILE_NAME = "projections.safetensors"

Projections = Mapping[int, Mapping[str, Tensor]]


def save_projections(projections: nn.ModuleList, directory: Path) -> None:
    """Write weight and bias of each projection: `0.weight`, `0.bias` (embedding output), ..."""
    from safetensors.torch import save_file

    tensors = {name: value.cpu().contiguous() for name, value in projections.state_dict().items()}
    save_file(tensors, directory / FILE_NAME)


def load_projections(projections: nn.ModuleList, source: ModelSource) -> bool:
    """Load the projections from their own file in a checkpoint's folder, if it exists and fits.

    Returns:
        Whether they were loaded.

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
            "new width projections"
        )
        return False
    projections.load_state_dict(found)
    return True


def take_projections(projections: nn.ModuleList, source: ModelSource) -> bool:
    """Load the projections from a checkpoint's weights, if they fit; logs the outcome.

    The public general students have them as `fit_denses.LAYER` (0 is the embedding output), older
    ones as one `fit_dense` for every layer.

    Args:
        source: a checkpoint that loads, sharded or not, safetensors or pickled.

    Returns:
        Whether they were loaded.
    """
    found = _stored_projections(source)
    reason = _misfit(found, projections)
    if reason is not None:
        say(f"student.start {source.location}: new width projections: {reason}")
        return False
    with torch.no_grad():
        for layer, projection in enumerate(projections):
            stored = found[SHARED if SHARED in found else layer]
            assert isinstance(projection, nn.Linear), "start_student made them"
            projection.weight.copy_(stored["weight"])
            projection.bias.copy_(stored["bias"])
    kind = "the one for all layers" if SHARED in found else f"all {len(projections)}"
    say(f"student.start {source.location}: trained width projections loaded, {kind}")
    return True


def settle_classifier(
    model: Any, labels: Sequence[str] | None, loaded: bool, source: ModelSource
) -> None:
    """Keep a checkpoint's classifier if it was trained on the same labels, else initialize one.

    Equal labels in another order are put into the data's order. A classifier for other labels is
    replaced even if its shape fits.

    Args:
        labels: the checkpoint's label names by output number; None when it has none.
        loaded: whether the model holds the checkpoint's classifier.
    """
    config = model.config
    wanted = [config.id2label[number] for number in range(config.num_labels)]
    known = list(labels or ())
    where = f"student.start {source.location}:"
    with torch.no_grad():
        if loaded and len(set(known)) == len(known) and sorted(known) == sorted(wanted):
            order = [known.index(label) for label in wanted]
            for parameter in model.classifier.parameters():
                parameter.copy_(parameter[order].clone())
            say(f"{where} trained classifier kept, its labels are the data's")
            return
        model.classifier.weight.normal_(std=config.initializer_range)
        model.classifier.bias.zero_()
    reason = (
        f"the checkpoint's labels are {short_list(known)}" if known else "the checkpoint has none"
    )
    say(f"{where} new classifier, {reason}")


def labels_of(config: Mapping[str, Any]) -> list[str] | None:
    """The label names in a checkpoint's config.json, by output number; None when it has none."""
    names = config.get("id2label")
    if not isinstance(names, Mapping):
        return None
    return [str(name) for _, name in sorted((int(number), name) for number, name in names.items())]


def _misfit(found: Projections, projections: nn.ModuleList) -> str | None:
    """Why the stored projections cannot be used; None when they can."""
    if not found:
        return "the checkpoint holds none (fit_denses.*)"
    needed = [SHARED] if SHARED in found else list(range(len(projections)))
    if sorted(found) != needed:
        return f"the checkpoint holds {len(found)} of them, the student needs {len(needed)}"
    first = projections[0]
    assert isinstance(first, nn.Linear), "start_student made it"
    shapes = {"weight": tuple(first.weight.shape), "bias": tuple(first.bias.shape)}
    for layer, stored in sorted(found.items()):
        name = "fit_dense" if layer == SHARED else f"fit_denses.{layer}"
        for part, shape in shapes.items():
            if part not in stored:
                return f"{name}.{part} is missing"
            if tuple(stored[part].shape) != shape:
                return (
                    f"{name}.{part} has the shape {tuple(stored[part].shape)}, "
                    f"teacher and student need {shape}"
                )
    return None


def _stored_projections(source: ModelSource) -> Projections:
    """Every projection among the checkpoint's weights, by layer; `SHARED` for one of all layers."""
    found: dict[int, dict[str, Tensor]] = {}
    for file in _weight_files(source):
        for name, tensor in _matching_tensors(file).items():
            match = PROJECTION.search(name)
            assert match is not None, "only matching names are read"
            layer = SHARED if match["layer"] is None else int(match["layer"])
            found.setdefault(layer, {})[match["part"]] = tensor
    layers = {layer: parts for layer, parts in found.items() if layer != SHARED}
    return layers or found


def _weight_files(source: ModelSource) -> list[Path]:
    """The files with projections, of the format `from_pretrained` prefers; nothing is downloaded.

    The checkpoint was loaded before, so a hub checkpoint's files are in the local cache.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole = _local_file(source, name)
        if whole is not None:
            return [whole]
        index = _local_file(source, f"{name}.index.json")
        if index is not None:
            placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            shards = sorted({file for key, file in placed.items() if PROJECTION.search(key)})
            return [file for shard in shards if (file := _local_file(source, shard)) is not None]
    return []


def _local_file(source: ModelSource, name: str) -> Path | None:
    from transformers.utils.hub import cached_file

    try:
        file = cached_file(source.location, name, revision=source.revision, local_files_only=True)
    except OSError:
        return None
    return None if file is None else Path(file)


def _matching_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as weights:
            names = [name for name in weights.keys() if PROJECTION.search(name)]  # noqa: SIM118
            return {name: weights.get_tensor(name) for name in names}
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if PROJECTION.search(name)}
