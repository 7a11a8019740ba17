"""A deployment over a day, with everything that happens on one."""
