"""Who is next: charges, decayed use, Fair Tree order, caps, reserves and victims. Values and integers only."""
