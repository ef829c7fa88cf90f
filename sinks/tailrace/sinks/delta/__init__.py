"""Delta Lake tables: merge-on-read by deletion vectors, offsets as app transactions."""
