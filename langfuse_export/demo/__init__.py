"""Sample data for a first look: two projects with every corner an export has to survive."""
