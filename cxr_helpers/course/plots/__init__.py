"""The figures of the course: one file a chapter, and style.py with what they share."""
