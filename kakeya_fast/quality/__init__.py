"""What packed caches do to real models: models, texts, the in-forward protocol, reports."""
