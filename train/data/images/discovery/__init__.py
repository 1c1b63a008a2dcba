"""Discovery of the splits and formats in a folder of images."""
