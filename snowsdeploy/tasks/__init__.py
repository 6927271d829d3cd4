"""What a model's outputs mean: metrics and agreement with the dense model."""
