"""Writes what the documentation takes from stored results and from the code: see ``docs/generate.py``."""
