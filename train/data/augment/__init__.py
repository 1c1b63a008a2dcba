"""Augmentation: crops, and the operations of AutoAugment and RandAugment."""
