"""A trained SB3 model as the short list of records that the runtime knows."""
