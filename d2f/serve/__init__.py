"""``python -m d2f serve``: one model as an HTTP service, on one machine or on many."""
