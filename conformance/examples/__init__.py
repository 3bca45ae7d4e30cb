"""A backend to copy, and an expected file to copy."""
