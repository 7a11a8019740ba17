"""The processes that work the queues off."""
