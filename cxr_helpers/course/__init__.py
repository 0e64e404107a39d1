"""The glue of the course: settings, data stages, results and notebook building."""
