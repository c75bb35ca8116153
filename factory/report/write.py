"""`report.html` of a run, written beside its stages, whether the gate said yes or no."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from factory.errors import StoreError
from factory.report.facts import RunFacts, bundle_facts, refused_facts
from factory.report.gate_failure import REFUSAL_FILE, read_refusal, report_folder
from factory.report.page import render_page
from factory.store import Store, directory_name

if TYPE_CHECKING:
    from factory.planning import RunPlan

PAGE_FILE = "report.html"


def report_bundle(bundle: Path, texts: int | None = None, output: Path | None = None) -> Path:
    """Write the page of a finished run.

    Args:
        texts: how many texts to show; None as the bundle's recipe says.
        output: the file; None for `report-FINGERPRINT/report.html` beside the bundle.

    Returns:
        The page.

    Raises:
        BundleError: no readable manifest.
    """
    facts = bundle_facts(bundle)
    folder = bundle.resolve().parent / directory_name("report", facts.fingerprint)
    if output is None:  # a bundle of the same recipe was refused before, under other code
        (folder / REFUSAL_FILE).unlink(missing_ok=True)
    return _write(facts, texts, output or folder / PAGE_FILE)


def report_refused(
    plan: RunPlan,
    store: Store,
    texts: int | None = None,
    output: Path | None = None,
) -> Path:
    """Write the page of a run that a gate stopped.

    Returns:
        The page.

    Raises:
        StoreError: the run did not get as far as a gate.
    """
    bundle = plan.keys["bundle"]
    refusal = read_refusal(store, bundle)
    facts = refused_facts(plan.recipe, bundle, plan.keys["evaluate"], store, refusal)
    return _write(facts, texts, output or report_folder(store, bundle) / PAGE_FILE)


def report_recipe(
    plan: RunPlan,
    store: Store,
    texts: int | None = None,
    output: Path | None = None,
) -> Path:
    """Write the page of a recipe's last run, finished or refused.

    Raises:
        StoreError: the recipe was not run in this store, or not as far as a gate.
    """
    if store.status(plan.keys["bundle"]) == "cached":
        texts = plan.recipe.report.texts if texts is None else texts
        return report_bundle(store.directory(plan.keys["bundle"]), texts, output)
    if store.status(plan.keys["evaluate"]) != "cached":
        raise StoreError(
            f"{store.root}: no run of this recipe that got as far as a gate; `factory plan` shows "
            "how far it got, `factory run` makes the rest"
        )
    return report_refused(plan, store, texts, output)


def _write(facts: RunFacts, texts: int | None, file: Path) -> Path:
    shown = facts.texts if texts is None else texts
    page = render_page(facts, shown)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(file)
    return file
