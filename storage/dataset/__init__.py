"""What a dataset is made of: parts, batch manifests and releases, and what changes them later."""
