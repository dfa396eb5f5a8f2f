"""Questions of speed, size and deployment, each a script of its own; grids of trainings, and all stored results."""
