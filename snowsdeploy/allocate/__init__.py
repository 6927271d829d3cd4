"""Which layers stay dense: what each costs, and the fewest that let the gates pass."""
