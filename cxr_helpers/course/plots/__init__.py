"""The figures of the course: one file a chapter."""
