"""Checking, preparing and converting collections."""
