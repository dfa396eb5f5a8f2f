"""How fast: training steps, and decisions of a trained agent."""
