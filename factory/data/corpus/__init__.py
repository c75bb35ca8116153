"""A raw corpus: read document by document, tokenized into packed rows on disk, read back mapped."""
