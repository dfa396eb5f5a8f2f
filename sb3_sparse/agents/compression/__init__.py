"""``sb3-sparse compress``: the files of an exported policy, and its comparison with the agent."""
