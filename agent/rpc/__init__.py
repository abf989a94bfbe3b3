"""gRPC: the protocol file, its generated stubs, and one servicer module per trust boundary."""
