"""Hosted models: how they are started and stopped, and how images reach them."""
