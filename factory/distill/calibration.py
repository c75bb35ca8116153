"""What passes through a model's modules on the calibration rows, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from factory.models.encoding import EncodedRows, collate, sorted_batches

CALIBRATION_BATCH_SIZE = 32

Side = Literal["input", "output"]


@torch.no_grad()
def states_of(
    bert: Any, points: Mapping[str, tuple[nn.Module, Side]], rows: EncodedRows, device: str
) -> dict[str, Tensor]:
    """The states at some points of a `BertModel` in eval mode, of real tokens only.

    Args:
        points: for each name a module below `bert` and which side of it to look at; the module
            takes and gives (batch, tokens, width), or gives a tuple that begins so, or gives
            (batch, width), one state per row.

    Returns:
        (tokens, width) in float32 on the CPU for each name. The tokens of all points, and of other
        models on the same rows, come in the same order.
    """
    bert.eval()
    seen: dict[str, Tensor] = {}
    collected: dict[str, list[Tensor]] = {name: [] for name in points}
    handles = [_watch(seen, name, module, side) for name, (module, side) in points.items()]
    try:
        for positions in sorted_batches(rows.lengths, CALIBRATION_BATCH_SIZE):
            batch = collate(rows, positions, device)
            bert(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                token_type_ids=batch.token_type_ids,
            )
            real = batch.attention_mask.bool()
            for name in points:
                states = seen[name] if seen[name].ndim == 2 else seen[name][real]
                collected[name].append(states.float().cpu())
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(states) for name, states in collected.items()}


def _watch(seen: dict[str, Tensor], name: str, module: nn.Module, side: Side) -> Any:
    def keep(states: Tensor | tuple[Tensor, ...]) -> None:
        seen[name] = states[0] if isinstance(states, tuple) else states

    if side == "input":
        before: Callable[..., None] = lambda _module, inputs: keep(inputs)  # noqa: E731
        return module.register_forward_pre_hook(before)
    after: Callable[..., None] = lambda _module, _inputs, output: keep(output)  # noqa: E731
    return module.register_forward_hook(after)


def with_one(states: Tensor) -> Tensor:
    """The states with a 1 appended, which a bias is the weight of: (tokens, width + 1)."""
    return torch.cat([states, torch.ones(len(states), 1, dtype=states.dtype)], dim=1)


def nearest_fit(inputs: Tensor, targets: Tensor, prior: Tensor, ridge: float) -> Tensor:
    """The linear map from inputs to targets with the least squared error, pulled towards a prior.

    Args:
        ridge: the pull, relative to the mean second moment of the inputs; what the inputs never
            vary in stays as in the prior.

    Shapes:
        inputs: (tokens, inputs); targets: (tokens, outputs)
        prior, returns: (outputs, inputs + 1), the bias in the last column
    """
    extended = with_one(inputs.double())
    square = extended.T @ extended
    pull = ridge * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    missing = targets.double() - extended @ prior.T
    correction: Tensor = torch.linalg.solve(square + pull, extended.T @ missing).T
    return prior + correction
