"""Counters for Prometheus: an app of its own, which needs the extra ``prometheus``."""
