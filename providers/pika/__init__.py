"""All that is Pika's own: its models are served by fal, in fal's protocol."""
