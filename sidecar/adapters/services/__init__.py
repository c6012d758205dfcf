"""Adapters of the service port: `http` for real services, `memory` for tests and simulation."""
