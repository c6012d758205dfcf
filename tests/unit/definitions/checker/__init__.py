"""The checker: what it finds, and that it finds all there is."""
