"""Telemetry: Prometheus for production, memory for tests."""
