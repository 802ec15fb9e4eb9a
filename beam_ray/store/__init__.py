"""
The store: objects on disk or S3, tables in Parquet, and the runs, libraries and documents made of them.

The question: how can a run survive the death of any process, without a database? The
answer: every part is created whole, if absent, and its presence is the commit; nothing is
ever changed. The road not taken: asking Ray, MLflow or a local database what is done.
"""
