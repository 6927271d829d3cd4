"""Curvature solvers on tensors and callables: conjugate gradients, least squares, Newton."""
