"""Estimates beside published hardware times of the same programs."""
