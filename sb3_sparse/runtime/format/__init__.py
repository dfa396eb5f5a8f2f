"""The compact file, byte by byte. Reading trusts nothing that the file says."""
