"""A relay on a machine that is no server: it carries for a mesh, and knows it by its root alone."""
