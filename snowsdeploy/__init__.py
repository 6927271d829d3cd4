"""Turn a trained vision model into a verified 2:4 sparse ONNX model."""
