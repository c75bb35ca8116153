"""First contact: a data file never seen before becomes a recipe that runs."""

from __future__ import annotations

from factory.first_contact.start import Start, start_recipe

__all__ = ["Start", "start_recipe"]
