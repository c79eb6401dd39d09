"""Checks and measures: masks, tables, J and F, gates. Imports only storage."""
