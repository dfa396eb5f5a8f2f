"""Dense libraries that inference is compared with."""
