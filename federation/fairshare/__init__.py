"""Who is next, and why: charging, decayed usage, the order of a line, caps, reserves, victims, reasons."""
