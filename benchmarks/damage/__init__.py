"""What codecs lose inside a model: passes, settings, and the page of their results."""
