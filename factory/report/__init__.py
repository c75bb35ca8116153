"""The report of a run, `report.html`: gate results, scores, costs, errors, training."""
