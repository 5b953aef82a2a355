"""What tests of DAGs and clients need: a real service, and faults on the way to it."""
