"""A policy as one C99 header without dependencies."""
