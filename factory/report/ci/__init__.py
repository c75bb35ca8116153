"""What a run tells a continuous integration system: JUnit XML, a Markdown summary."""
