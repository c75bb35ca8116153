"""init: a data file never seen before becomes a recipe that runs."""
