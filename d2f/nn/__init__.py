"""The network and what it computes with: torch, and no decoding."""
