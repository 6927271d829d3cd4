"""The checker: where the weights of a file hold a pattern."""
