"""``python -m d2f bench``: what the decoders are worth, speed and correctness together.

``suite`` runs the lanes and counts, ``machine`` says on what, ``report`` writes it down.
"""
