"""Measurements, as ratios between things that run in turn."""
