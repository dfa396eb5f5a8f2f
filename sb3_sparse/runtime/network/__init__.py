"""What an exported policy is: its records, its activations, and the reference that defines what it computes."""
