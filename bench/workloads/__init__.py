"""Programs that benchmarks both time on devices and estimate for TPUs."""
