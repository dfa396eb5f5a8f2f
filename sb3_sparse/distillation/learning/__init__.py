"""How a network learns the outputs of another: its goal, the states, and the training, in torch and in the engine."""
