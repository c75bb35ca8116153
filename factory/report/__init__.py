"""The page of a run, `report.html`: what was built, how good it is, what it costs, and why."""
