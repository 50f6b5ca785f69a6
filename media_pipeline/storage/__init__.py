"""Where videos and work files are kept, on a local disk or in a bucket, and the signed links that lead to them."""
