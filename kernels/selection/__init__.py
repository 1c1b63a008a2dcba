"""Select which implementation of an op runs."""
