"""The wire: HTTP, signatures, and values as the API model has them."""
