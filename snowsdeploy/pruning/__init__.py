"""Masks, then reconstruction front to back: `prune` is the whole-model loop, and stands on four folders.

- `flow`: values through the graph: activations and where they lie, windows, moments of inputs
- `importance`: what a weight, or an error at a value, is worth; masks of the whole model
- `solve`: one unit: its window's objective, the start, the preconditioner, Newton's steps; the final pass
- `forecast`: memory, time and disk of a run, before it starts
"""
