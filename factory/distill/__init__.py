"""Task distillation: layer map, losses, student start and the two training phases."""
