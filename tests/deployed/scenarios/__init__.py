"""The scenarios, by topic, in the order in which they run."""

from . import doors, calls, jobs, batches, lists, webhooks, failures, operator, sweep  # noqa: F401
