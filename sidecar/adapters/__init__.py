"""Adapters: each family of backends in a folder, each backend in a file of its name."""
