"""Who is next: charges, decayed use, Fair Tree order, caps, reserves and victims. Integers only."""
