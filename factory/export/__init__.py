"""From a trained student to checked ONNX files."""
