"""An ONNX file to a module that torch.export traces, whose parameters know the initializers that they came from."""
