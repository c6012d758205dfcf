"""Elections: PostgreSQL's advisory lock, and the twin in memory."""
