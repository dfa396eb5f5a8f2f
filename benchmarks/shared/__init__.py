"""What all benchmarks share: how a question is asked and its answer stored, and how contestants take turns."""
