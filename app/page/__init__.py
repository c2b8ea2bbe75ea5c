"""What visitors see and do: layout, handlers, messages, charts, and the endpoints for programs."""
