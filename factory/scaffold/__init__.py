"""`factory init`: inspect a data file and write a recipe for it."""
