"""What an alert's own packet tells of the past, in numbers that conditions can ask for."""
