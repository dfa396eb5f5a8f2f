"""The states that a student meets: in environments, or recorded ones."""
