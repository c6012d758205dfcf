"""Tests of the telemetry adapters."""
