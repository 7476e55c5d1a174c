"""Calls to vendors: written down before they are sent, within limits, their payloads kept."""
