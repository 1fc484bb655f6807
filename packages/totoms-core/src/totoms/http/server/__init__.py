"""The HTTP/1.1 server: uvicorn with its own protocol class for connections."""
