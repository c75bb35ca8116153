"""Scoring models: metrics, intervals, thresholds, latency, and the gate."""
