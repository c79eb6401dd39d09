"""What lasts: videos, masks, parts, tables and releases. Imports nothing of ours."""
