"""Discovery: which splits a folder of images holds, and in which format."""
