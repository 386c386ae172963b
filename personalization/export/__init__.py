"""A personal model as files for a device: ONNX, int8, GGUF."""
