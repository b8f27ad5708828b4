"""The messages between coordinator and hospitals, and the quantities that they may carry."""
