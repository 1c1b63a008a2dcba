"""Tables and pictures of benchmark rows."""
