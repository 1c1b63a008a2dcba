"""What the Pallas TPU kernels share: registers, the prologue, the chip."""
