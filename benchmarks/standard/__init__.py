"""Bytes of whole caches, real models and published shapes: see STANDARD.md."""
