"""Long work: a queue in the database, and the processes that do it."""
