"""Whole processes, as a user runs them."""
