"""The servers that the tests talk to over the wire."""
