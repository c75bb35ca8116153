"""The teacher: fine-tuned or adopted, and checked."""
