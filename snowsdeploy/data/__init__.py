"""Calibration and evaluation images."""
