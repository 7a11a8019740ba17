"""Blob stores over the wire."""
