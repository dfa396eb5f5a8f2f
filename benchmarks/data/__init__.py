"""Agents and data that other benchmarks begin with."""
