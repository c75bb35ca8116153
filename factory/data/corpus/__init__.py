"""The raw corpus of general distillation: read, tokenized and packed into rows on disk."""
