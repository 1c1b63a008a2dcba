"""Processes of a run: their start, signals and ends."""
