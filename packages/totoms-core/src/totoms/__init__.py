"""totoms: declare a microservice once, run it unchanged on a laptop and on any cloud."""
