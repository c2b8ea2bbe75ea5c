"""From names, folders and the hub to networks with their weights."""
