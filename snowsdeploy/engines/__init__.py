"""What a TensorRT engine made of the pattern: logs and inspectors read, found and chosen."""
