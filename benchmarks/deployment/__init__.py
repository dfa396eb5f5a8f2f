"""Whether what is exported works elsewhere: in C, on a microcontroller, in ONNX, over whole collections of agents."""
