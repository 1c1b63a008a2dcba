"""Training: recipes, the step, the loop. `python -m podscale.train PRESET`."""
