"""N:M patterns, the hardware layout of a weight, and the checker."""
