"""Any trained agent: loaded from its zip, measured, and compared with its compressed policy."""
