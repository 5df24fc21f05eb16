"""Spans of OpenTelemetry: an app of its own, which needs the extra ``opentelemetry``."""
