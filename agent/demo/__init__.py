"""The demonstration: two nodes on one machine, real models, real transfers, two small dramas."""
