"""The message bus: Service Bus, and what Event Grid pushes."""
