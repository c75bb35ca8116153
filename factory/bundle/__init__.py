"""The bundle: assembled, selected, described, packaged and published."""
