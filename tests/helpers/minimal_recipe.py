"""The smallest recipe that is valid, as a tree to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recipe_tree(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A fresh valid tree with some dotted keys set; a value of ... removes the key."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "data": {"train": "train.tsv", "dev": "dev.tsv"},
        "teacher": {"model": "org/teacher"},
        "gate": {"min_value": 0.5},
    }
    set_keys(tree, changes or {})
    return tree


def set_keys(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set dotted keys of a tree; a value of ... removes the key."""
    for path, value in changes.items():
        *sections, key = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        if value is ...:
            del node[key]
        else:
            node[key] = value
