"""The depthwise convolution as Pallas TPU kernels."""
