"""For tests of DAGs and clients: a real service, and network faults on the way to it."""
