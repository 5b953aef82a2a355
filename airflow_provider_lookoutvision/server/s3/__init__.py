"""The folder buckets, served as S3: an embedded default, so that one URL is enough."""
