"""What one visitor can do to all others: requests, waiting, memory and log, each within bounds."""
