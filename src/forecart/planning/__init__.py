"""What a size of business costs in memory, disk, core-hours and machines, before anything is bought."""
