"""Sources that need no image files: Fashion-MNIST and synthetic images."""
