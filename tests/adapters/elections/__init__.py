"""Bindings of the elections."""
