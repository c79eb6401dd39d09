"""The Apache Iceberg tables: commits, reads, their catalog, and what is done about their errors."""
