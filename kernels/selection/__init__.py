"""Selection of the implementation that runs an op, the same for all ops."""
