"""The migrations of the queue's database, one file a revision in `versions/`. See `env.py`."""
