"""Models: where they come from, loading them, and encoding texts for them."""
