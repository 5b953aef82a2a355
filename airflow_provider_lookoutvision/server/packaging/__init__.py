"""Models for devices: what the packaging operations do, and how a component is made of a model."""
