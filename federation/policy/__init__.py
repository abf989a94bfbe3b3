"""Policy files of a consortium and the overlays of its donors: from YAML to values that decisions read."""
