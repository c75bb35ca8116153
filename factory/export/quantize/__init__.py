"""Quantized ONNX files: calibration and the writer of integer graphs."""
