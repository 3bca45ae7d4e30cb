"""What stands of the claims of the lineage, on one page."""
