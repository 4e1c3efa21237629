"""An index over many runs, in SQLite or PostgreSQL; it can be rebuilt from their records."""
