"""The queues: one file for each backend, named like it."""
