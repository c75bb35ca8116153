"""Data augmentation: examples made from the training rows by replacing words with likely others."""
