"""How small: networks, files, and what is kept of the return in so many bytes."""
