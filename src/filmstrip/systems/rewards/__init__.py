"""Rewards: models of experts' videos, whose likelihood an agent is trained to raise."""
