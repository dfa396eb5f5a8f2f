"""What turns a traced network into a smaller one: folding, shrinking and quantizing."""
