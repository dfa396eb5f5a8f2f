"""The integer arithmetic of the generated C code: its constants, the same in numpy, and the code."""
