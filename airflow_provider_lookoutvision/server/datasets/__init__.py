"""Datasets: what the dataset operations do, how manifests are read, and how they are imported."""
