"""The command line, and the only folder that knows all the others."""
