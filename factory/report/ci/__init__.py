"""Reports of a run for continuous integration: JUnit XML and a Markdown summary."""
