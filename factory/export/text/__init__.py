"""ONNX files with strings in and labels out."""
