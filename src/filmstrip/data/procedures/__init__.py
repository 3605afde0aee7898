"""Procedures: annotated videos of ordered steps, and windows of them for forecasting and planning."""
