"""Programs of the kernels: equations are traced, differentiated, and laid out in memory."""
