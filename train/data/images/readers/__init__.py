"""Readers of image data sets, one module for each file format."""
