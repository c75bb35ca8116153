"""A finished bundle to a folder or to a repository of the Hugging Face Hub."""
