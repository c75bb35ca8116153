"""Scores files of any size with a finished bundle; needs neither torch nor datasets."""
