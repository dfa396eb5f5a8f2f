"""How a network learns from the outputs of another: what it learns, the states, and the training, in torch and in the engine."""
