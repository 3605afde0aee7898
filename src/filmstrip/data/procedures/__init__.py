"""Procedures: annotated videos of ordered steps, and the windows that forecasting and planning are learned from."""
