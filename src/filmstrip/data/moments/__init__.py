"""Moments of videos that queries in words describe: types, and the features of videos and of queries."""
