"""What a weight is worth, and an error at a value: by inputs, by curvature, by the loss; and the masks that follow."""
