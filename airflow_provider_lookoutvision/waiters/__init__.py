"""Waiting for a state of the service."""
