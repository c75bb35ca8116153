"""The recipe: every setting that changes an artifact's bytes, one section per module."""
