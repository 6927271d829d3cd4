"""Trained network in, verified 2:4 sparse ONNX model out."""
