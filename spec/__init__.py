"""The Kakeya specification as package data: text, registry and frozen vectors. No code lives here."""
