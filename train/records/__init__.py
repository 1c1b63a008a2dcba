"""Files that a run writes and reads back."""
