"""Training of the embedded models: ``python -m d2f train <model>``."""
