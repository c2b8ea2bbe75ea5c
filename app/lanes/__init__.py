"""Runs as events: by this engine here or in another process, by transformers, by servers."""
