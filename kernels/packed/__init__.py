"""Trees of arrays in one buffer, and the kernels that go over it."""
