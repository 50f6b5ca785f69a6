"""All that is Kling's own."""
