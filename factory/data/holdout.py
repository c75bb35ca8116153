"""Part of train held out as dev: stratified, seeded, duplicates kept together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from factory.data.dataset import Split, labels_of_rows, select
from factory.data.messages import Findings, count
from factory.errors import short_list
from factory.recipe.data import DataSettings

Group = list[int]  # row indices of one input
NO_LABEL = -1  # the class of rows without labels


def hold_out(
    train: Split, labels: Sequence[str], settings: DataSettings, findings: Findings
) -> tuple[Split, Split]:
    """Split train into the remaining rows and the held-out rows, both in file order.

    The draw depends on the seed and the texts, not on the order of the file. Every class keeps at
    least one row in train. A row with several labels belongs to the stratum of its rarest one.
    """
    assert settings.dev_fraction is not None, "only called to hold out rows"
    # 0.1 means one tenth, not the nearest binary fraction
    share = Fraction(repr(settings.dev_fraction))
    labels_of = [row_labels or (NO_LABEL,) for row_labels in labels_of_rows(train)]
    left = Counter(label for row_labels in labels_of for label in row_labels)
    classes = [min(names, key=lambda name: (left[name], name)) for names in labels_of]
    quotas = _quotas(Counter(classes), share)
    strata: dict[int, list[Group]] = {}
    for group in _groups(train, settings.seed):
        strata.setdefault(classes[group[0]], []).append(group)
    drawn: set[int] = set()
    for target, groups in strata.items():
        drawn.update(_draw(groups, quotas[target], labels_of, left))
    rows = range(len(train))
    dev = select(train, "dev", [row for row in rows if row in drawn])
    rest = select(train, "train", [row for row in rows if row not in drawn])
    _note(train, dev, labels, settings, findings)
    return rest, dev


def _quotas(sizes: Counter[int], share: Fraction) -> dict[int, int]:
    """Rows to draw from each class, by the method of largest remainders."""
    exact = {target: size * share for target, size in sizes.items()}
    quotas = {target: int(value) for target, value in exact.items()}
    missing = round(sum(exact.values())) - sum(quotas.values())
    by_remainder = sorted(exact, key=lambda target: (quotas[target] - exact[target], target))
    for target in by_remainder[:missing]:
        quotas[target] += 1
    return quotas


def _groups(train: Split, seed: int) -> list[Group]:
    """Rows grouped by input, the groups in an order that depends on seed and input."""
    groups: dict[object, Group] = {}
    for row, key in enumerate(train.inputs()):
        groups.setdefault(key, []).append(row)

    def rank(item: tuple[object, Group]) -> bytes:
        return hashlib.sha256(f"{seed}\0{item[0]!r}".encode()).digest()

    return [group for _, group in sorted(groups.items(), key=rank)]


def _draw(
    groups: list[Group], quota: int, labels_of: Sequence[tuple[int, ...]], left: Counter[int]
) -> list[int]:
    """Draw whole groups up to the quota, never the last rows of a class; updates `left`."""
    drawn: list[int] = []
    for group in groups:
        takes = Counter(label for row in group for label in labels_of[row])
        fits = len(drawn) + len(group) <= quota
        if fits and all(left[target] > number for target, number in takes.items()):
            drawn.extend(group)
            left.subtract(takes)
    return drawn


def _note(
    train: Split, dev: Split, labels: Sequence[str], settings: DataSettings, findings: Findings
) -> None:
    share = f"data.dev_fraction {settings.dev_fraction}"
    if len(dev) == 0:
        findings.problems.append(
            f"{share}: holds out none of {count(len(train), 'row')}; raise it or add rows"
        )
        return
    findings.notices.append(
        f"{share}: {len(dev):,} of {count(len(train), 'row')} of train held out as dev "
        f"(seed {settings.seed})"
    )
    present = {label for row_labels in labels_of_rows(dev) for label in row_labels}
    if absent := sorted({label for row in labels_of_rows(train) for label in row} - present):
        names = short_list([labels[label] for label in absent])
        findings.notices.append(f"{share}: dev has no row of {names}")
