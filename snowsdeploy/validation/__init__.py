"""Measures exported files: parity, accuracy, latency, environment. Has no opinion."""
