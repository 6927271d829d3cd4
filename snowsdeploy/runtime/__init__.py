"""ONNX Runtime on this machine: sessions, providers, libraries, compiled engines."""
