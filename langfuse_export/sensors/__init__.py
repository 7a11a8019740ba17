"""Sensors: what the code location notices by itself, beside the clock of its schedules."""
