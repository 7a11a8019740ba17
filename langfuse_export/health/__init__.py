"""Whether a project's exports work, when it is tried again if not, and who is told."""
