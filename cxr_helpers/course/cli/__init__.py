"""The stages of the course on the command line."""
