"""The page: two lanes race on one prompt, drawn from the events of the decoders in ``d2f``."""
