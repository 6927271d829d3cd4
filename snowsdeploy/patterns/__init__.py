"""N:M and unstructured patterns, the masks that hold them, and thresholds."""
