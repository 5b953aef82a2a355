"""Models: what the model operations do, and how models are trained and evaluated."""
