"""All that is Runway's own."""
