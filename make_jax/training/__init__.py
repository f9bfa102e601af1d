"""Optimizer, the step, telemetry, the loop."""
