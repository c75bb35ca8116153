"""Post-training quantization of an exported student to 8-bit and 4-bit integers."""
