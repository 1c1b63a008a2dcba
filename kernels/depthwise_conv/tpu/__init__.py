"""The depthwise convolution as Pallas kernels for TPUs."""
