"""What an export reports: bytes by layer, and a figure of them."""
