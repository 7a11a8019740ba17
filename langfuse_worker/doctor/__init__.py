"""`langfuse-worker doctor`: checks a deployment and says what to do.

A check is a small function from the settings to findings. Packages add theirs as an entry point of
`langfuse_worker.checks`: a function that takes the settings and returns the checks of this deployment's role.
"""

from langfuse_worker.doctor.finding import Check, Finding, Status, ok, problem, warning

__all__ = ["Check", "Finding", "Status", "ok", "problem", "warning"]
