"""Tests against real engines and servers, which they start themselves."""
