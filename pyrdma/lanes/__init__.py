"""Lane workers: processes that parse bytes from other machines, and hold nothing worth stealing."""
