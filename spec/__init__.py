"""The Kakeya specification as data: text, registry and frozen vectors. No code lives here."""
