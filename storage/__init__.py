"""Everything that is kept: videos, masks, parts, tables and releases. Imports no other folder of this project."""
