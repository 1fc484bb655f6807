"""totoms: declare a microservice once, run it on a laptop and on any cloud."""
