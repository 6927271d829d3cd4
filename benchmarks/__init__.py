"""Measurements of accuracy, cost and speed; each module is one command, `python -m benchmarks.NAME`."""
