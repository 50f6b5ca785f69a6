"""Webhooks to users' receivers: endpoints and their secrets, deliveries and their tries, what is sent and when.

Tables: `WebhookEndpoint`, `WebhookSecret`, `WebhookDelivery`, `WebhookTry`, `WebhookCircuit`. A trigger of the database
writes the deliveries; nothing here is in the way of a task.
"""
