"""What the PostgreSQL adapters share: the pool, error translation, migrations, embedded server."""
