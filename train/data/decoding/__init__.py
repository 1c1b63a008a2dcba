"""Decoding of image files: JPEG, PNG, WebP and BMP to pixels."""
