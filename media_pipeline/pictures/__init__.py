"""Pictures of unknown origin, such as start images: what kind they are, and the same without metadata and upright."""
