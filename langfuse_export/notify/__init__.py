"""Tells people that exports fail, stop or work again: webhook, Slack, e-mail."""
