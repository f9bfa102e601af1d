"""Search: an index of a catalog on disk, engines that rank its products, the HTTP API and the page."""
