"""Trees of tensors packed into one buffer, and the kernels on it."""
