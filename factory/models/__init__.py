"""Models: finding and loading them, and encoding texts for them."""
