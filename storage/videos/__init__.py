"""Videos: reading them from anywhere, making them uniform, and reading frames of stored ones."""
