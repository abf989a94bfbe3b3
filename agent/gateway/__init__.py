"""The gateway of a site: pure rules over values, and the one shell that carries them out."""
