"""Measurements of the service; ``make bench`` runs them, ``docs/benchmarks.md`` holds their results."""
