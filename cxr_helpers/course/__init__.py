"""The glue of the course: a folder for each chapter, and `core` for what all of them need."""
