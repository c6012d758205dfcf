"""Tests of the HTTP contract without I/O."""
