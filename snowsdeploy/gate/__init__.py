"""Rules and verdict: pure functions of a report."""
