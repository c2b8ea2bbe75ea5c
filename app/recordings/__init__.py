"""Races to keep: as a file, as a link, in a store."""
