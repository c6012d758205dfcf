"""Other systems, each in the arrangement that suits it best, running the same saga."""
