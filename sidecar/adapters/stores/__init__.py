"""Stores: PostgreSQL, and the twin in memory."""
