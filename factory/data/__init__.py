"""Data: files or a hub data set become checked train, dev and test splits."""
