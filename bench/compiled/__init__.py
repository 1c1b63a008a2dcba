"""Facts about compiled programs, read from XLA's text and analyses."""
