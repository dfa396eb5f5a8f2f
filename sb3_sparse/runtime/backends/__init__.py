"""The backends that run a policy: numpy, and one constant C kernel that is compiled on first use."""
