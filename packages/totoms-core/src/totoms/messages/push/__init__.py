"""Push: messages that a broker delivers over HTTP to ``POST {base_path}/events``."""
