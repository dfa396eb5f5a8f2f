"""The definition of an exported policy: its records, its activations, their formulas in numpy."""
