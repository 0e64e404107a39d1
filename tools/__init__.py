"""Builds notebooks, README and site; nothing here is imported by a notebook."""
