"""Settings of a run, its presets and its command line."""
