"""Two bundles on the same rows: what changed, and whether it could be chance."""
