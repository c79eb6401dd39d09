"""Checks and metrics: masklets, tables, J and F, gates. Imports only storage."""
