"""Loading: from a source to batches on the devices."""
