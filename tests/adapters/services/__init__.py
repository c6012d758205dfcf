"""Tests of the adapters of the service port."""
