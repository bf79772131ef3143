"""The agent: what runs on a target host. Light, and never imports `reconciler`."""
